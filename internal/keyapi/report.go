package keyapi

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Bounds of a report, as it is and as it travels.
const (
	MaxReport       = 1 << 20
	MaxPackedReport = 128 << 10
)

// ReportRequest comes from a sweeper's pod, which its token names. A pod reports once; the same report may be sent
// again.
type ReportRequest struct {
	PlanHash string `json:"planHash"`
	// Report is what PackReport made of the report's canonical bytes.
	Report []byte `json:"report"`
}

// ReportResponse says that the report was taken, signed and kept.
type ReportResponse struct {
	Digest   string `json:"digest"`   // as DigestReport
	Sequence int64  `json:"sequence"` // among the store's reports
}

// LastReportRequest asks for the last report of a DataStore.
type LastReportRequest struct {
	Object ObjectRef `json:"object"`
}

// LastReportResponse holds it. Both fields are empty where none was ever taken.
type LastReportResponse struct {
	// Statement is what the keyserver signed: internal/ledger reads it.
	Statement string `json:"statement,omitempty"`
	// Report is packed.
	Report []byte `json:"report,omitempty"`
}

// ErrNoReport says that bytes are no packed report, or of one that is too long.
var ErrNoReport = errors.New("these bytes are no packed report of 1 to 1048576 bytes")

// DigestReport names a report by its canonical bytes: the SHA-256 in hex.
func DigestReport(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// PackReport compresses a report's canonical bytes with DEFLATE (RFC 1951).
func PackReport(canonical []byte) ([]byte, error) {
	if len(canonical) == 0 || len(canonical) > MaxReport {
		return nil, fmt.Errorf("a report of %d bytes: 1 to %d fit", len(canonical), MaxReport)
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(canonical)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack the report: %w", err)
	}
	if b.Len() > MaxPackedReport {
		return nil, fmt.Errorf("a report of %d bytes, packed: %d fit", b.Len(), MaxPackedReport)
	}
	return b.Bytes(), nil
}

// UnpackReport is the inverse. It never makes more of what it is given than a report can be, and takes nothing behind
// it.
func UnpackReport(packed []byte) ([]byte, error) {
	var canonical bytes.Buffer
	if err := inflate(&canonical, packed); err != nil {
		return nil, err
	}
	return canonical.Bytes(), nil
}

// DigestPacked names a packed report as DigestReport names it, and holds none of it.
func DigestPacked(packed []byte) (string, error) {
	h := sha256.New()
	if err := inflate(h, packed); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func inflate(into io.Writer, packed []byte) error {
	if len(packed) > MaxPackedReport {
		return ErrNoReport
	}
	in := bytes.NewReader(packed)
	n, err := io.Copy(into, io.LimitReader(flate.NewReader(in), MaxReport+1))
	if err != nil || n == 0 || n > MaxReport || in.Len() > 0 {
		return ErrNoReport
	}
	return nil
}
