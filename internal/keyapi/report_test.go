package keyapi

import (
	"bytes"
	"compress/flate"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestAReportTravelsPacked(t *testing.T) {
	for _, size := range []int{1, 300, MaxReport} {
		canonical := bytes.Repeat([]byte("r"), size)
		packed, err := PackReport(canonical)
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnpackReport(packed)
		if err != nil || !bytes.Equal(got, canonical) {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
		if digest, err := DigestPacked(packed); err != nil || digest != DigestReport(canonical) {
			t.Errorf("%d bytes: %s, %v", size, digest, err)
		}
	}
}

// TestWhatIsNoReport: a sender does not make anybody hold more than a report, and a report has one form.
func TestWhatIsNoReport(t *testing.T) {
	deflate := func(content []byte) []byte {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, flate.BestCompression)
		if err == nil {
			_, err = w.Write(content)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	good := deflate([]byte("a report"))
	for what, packed := range map[string][]byte{
		"nothing":                nil,
		"no DEFLATE":             []byte("a report"),
		"an empty one":           deflate(nil),
		"one that was cut":       good[:len(good)-2],
		"bytes behind it":        append(bytes.Clone(good), 0),
		"a byte more than fits":  deflate(make([]byte, MaxReport+1)),
		"a bomb":                 deflate(make([]byte, 64<<20)),
		"more packed than fits":  append(bytes.Clone(good), make([]byte, MaxPackedReport)...),
		"two, one after another": append(bytes.Clone(good), good...),
	} {
		if got, err := UnpackReport(packed); !errors.Is(err, ErrNoReport) {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		if digest, err := DigestPacked(packed); !errors.Is(err, ErrNoReport) {
			t.Errorf("%s: %s, %v", what, digest, err)
		}
	}
	noise := make([]byte, MaxReport)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for what, canonical := range map[string][]byte{"nothing": nil, "too much": make([]byte, MaxReport+1), "what does not pack": noise} {
		if _, err := PackReport(canonical); err == nil {
			t.Errorf("%s was packed", what)
		}
	}
}

func FuzzUnpackReport(f *testing.F) {
	good, err := PackReport([]byte(`{"v":1}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packed []byte) {
		if got, err := UnpackReport(packed); err == nil && (len(got) == 0 || len(got) > MaxReport) {
			t.Fatalf("%d bytes", len(got))
		}
	})
}
