package leakscan

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	chunk = 4 << 20
	// maxFindings of one secret in one place: a file full of it is one leak, and must not hide another.
	maxFindings = 8
	// maxInflated bounds what one gzip stream is inflated to.
	maxInflated = 256 << 20
)

// Report is what a search looked at and found.
type Report struct {
	Findings []Finding `json:"findings"`
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`
	// Vanished counts files that were gone before they could be read: a running system's folders change.
	Vanished int `json:"vanished,omitempty"`
}

// Add joins another report to this one.
func (r *Report) Add(other Report) {
	r.Findings = append(r.Findings, other.Findings...)
	r.Files += other.Files
	r.Bytes += other.Bytes
	r.Vanished += other.Vanished
}

// Reader searches a stream; place names it in findings.
func (s *Scanner) Reader(place string, r io.Reader) (Report, error) {
	return s.stream(place, r, true)
}

// stream goes through a reader in chunks that overlap by the longest pattern.
func (s *Scanner) stream(place string, r io.Reader, inflate bool) (Report, error) {
	rep := Report{}
	times := map[string]int{}
	buf := make([]byte, 0, chunk+s.longest)
	offset := int64(0) // of buf[0]
	for {
		n, err := io.ReadFull(r, buf[len(buf):len(buf)+chunk])
		buf = buf[:len(buf)+n]
		rep.Bytes += int64(n)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return rep, fmt.Errorf("read %s: %w", place, err)
		}
		keep := s.longest
		if last {
			keep = 0
		}
		within := max(0, len(buf)-keep)
		s.search(buf, within, func(p pattern, at int) {
			if times[p.needle]++; times[p.needle] <= maxFindings {
				rep.Findings = append(rep.Findings, Finding{p.needle, p.form, place, offset + int64(at)})
			}
		})
		if inflate {
			s.inflate(place, offset, buf, within, &rep)
		}
		if last {
			return rep, nil
		}
		copy(buf, buf[within:])
		offset += int64(within)
		buf = buf[:len(buf)-within]
	}
}

// inflate opens what looks like gzip in the buffer. A stream is followed to the buffer's end, which is far for
// what systems keep compressed inside other files (Helm's releases, journals); a file that is gzip as a whole is
// opened by file.
func (s *Scanner) inflate(place string, offset int64, buf []byte, within int, rep *Report) {
	magic := []byte{0x1f, 0x8b, 0x08}
	for at := 0; at < within; {
		i := bytes.Index(buf[at:within], magic)
		if i < 0 {
			return
		}
		at += i
		if z, err := gzip.NewReader(bytes.NewReader(buf[at:])); err == nil {
			inner, _ := s.stream(fmt.Sprintf("%s (gzip at byte %d)", place, offset+int64(at)), io.LimitReader(whatIsThere{z}, maxInflated), false)
			rep.Findings = append(rep.Findings, inner.Findings...)
		}
		at += len(magic)
	}
}

// whatIsThere ends a stream where it cannot be read any further: three bytes that look like gzip's need not be gzip.
type whatIsThere struct{ r io.Reader }

// Read implements io.Reader.
func (w whatIsThere) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// File searches one file, and what is in it when it is gzip.
func (s *Scanner) File(path string) (Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return Report{}, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	rep, err := s.stream(path, f, true)
	rep.Files = 1
	if err != nil {
		return rep, err
	}
	var head [2]byte
	if n, _ := f.ReadAt(head[:], 0); n == 2 && head == [2]byte{0x1f, 0x8b} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return rep, fmt.Errorf("read %s again: %w", path, err)
		}
		if z, err := gzip.NewReader(f); err == nil {
			inner, err := s.stream(path+" (gzip)", whatIsThere{z}, false)
			rep.Findings = append(rep.Findings, inner.Findings...)
			if err != nil {
				return rep, err
			}
		}
	}
	return rep, nil
}

// Tree searches every regular file below a folder, without following links. A file that cannot be read is an error,
// since it was not searched; one that is gone meanwhile is counted.
func (s *Scanner) Tree(ctx context.Context, root string) (Report, error) {
	rep := Report{}
	var problems []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist) && path != root:
			rep.Vanished++
			return nil
		case err != nil && path == root:
			return err
		case err != nil:
			problems = append(problems, err)
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		one, err := s.File(path)
		rep.Add(one)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			rep.Vanished++
		case err != nil:
			problems = append(problems, err)
		}
		return nil
	})
	if err != nil {
		return rep, fmt.Errorf("search %s: %w", root, err)
	}
	if len(problems) > 0 {
		return rep, fmt.Errorf("search %s: %d files could not be read: %w", root, len(problems), errors.Join(problems[:min(3, len(problems))]...))
	}
	return rep, nil
}
