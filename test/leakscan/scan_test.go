package leakscan

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// secret holds bytes whose base64 differs between the two alphabets.
var secret = []byte("\xfb\xff\xfe4242:AAExample_Secret-Value\xff\xfb\xfe")

func scanner(t testing.TB, needles ...Needle) *Scanner {
	t.Helper()
	if needles == nil {
		needles = []Needle{{"token", secret}}
	}
	s, err := New(needles)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // a bytes.Buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

func TestEveryFormIsFound(t *testing.T) {
	s := scanner(t)
	for name, tc := range map[string]struct {
		content []byte
		form    string
	}{
		"raw":                       {secret, "raw"},
		"hex":                       {[]byte(hex.EncodeToString(secret)), "hex"},
		"hex in capitals":           {[]byte(strings.ToUpper(hex.EncodeToString(secret))), "hex"},
		"base64":                    {[]byte(base64.StdEncoding.EncodeToString(secret)), "base64"},
		"base64 for URLs":           {[]byte(base64.RawURLEncoding.EncodeToString(secret)), "base64url"},
		"base64 of a document, 1":   {[]byte(base64.StdEncoding.EncodeToString([]byte("x" + string(secret) + "yz"))), "base64"},
		"base64 of a document, 2":   {[]byte(base64.StdEncoding.EncodeToString([]byte("xx" + string(secret) + "y"))), "base64"},
		"base64url of a document":   {[]byte(base64.URLEncoding.EncodeToString([]byte("xx" + string(secret) + "y"))), "base64url"},
		"gzip inside something":     {append([]byte("release: "), gzipped(secret)...), "raw"},
		"base64 inside gzip inside": {gzipped([]byte(base64.StdEncoding.EncodeToString(secret))), "base64"},
	} {
		rep, err := s.Reader(name, bytes.NewReader(append(append([]byte("before "), tc.content...), " after"...)))
		if err != nil || len(rep.Findings) == 0 || rep.Findings[0].Form != tc.form {
			t.Errorf("%s: %v %v", name, rep.Findings, err)
		}
	}
}

func TestNothingIsFoundWhereNothingIs(t *testing.T) {
	s := scanner(t)
	for name, content := range map[string][]byte{
		"empty":            {},
		"shorter than any": []byte("42"),
		"all but the end":  secret[:len(secret)-1],
		"another value":    []byte(base64.StdEncoding.EncodeToString([]byte("4242:AAAnother_Secret-Value_Entirely"))),
		"looks like gzip":  {0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3},
	} {
		if rep, err := s.Reader(name, bytes.NewReader(content)); err != nil || len(rep.Findings) != 0 || rep.Bytes != int64(len(content)) {
			t.Errorf("%s: %+v %v", name, rep, err)
		}
	}
}

// TestAnyAlignmentIsFound: whatever stands around a value, and wherever chunks are cut.
func TestAnyAlignmentIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(rapid.Byte(), MinLength, 40).Draw(t, "value")
		before := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "before")
		after := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "after")
		s, err := New([]Needle{{"v", value}})
		if err != nil {
			t.Fatal(err)
		}
		whole := append(append(append([]byte{}, before...), value...), after...)
		for form, content := range map[string]string{
			"raw": string(whole), "hex": hex.EncodeToString(whole), "std": base64.StdEncoding.EncodeToString(whole),
			"url": base64.RawURLEncoding.EncodeToString(whole),
		} {
			rep, err := s.Reader("x", iotest.OneByteReader(strings.NewReader(content)))
			if err != nil || len(rep.Findings) == 0 {
				t.Fatalf("%s: not found (%v)", form, err)
			}
		}
	})
}

func TestAValueOnTheEdgeOfAChunkIsFoundOnce(t *testing.T) {
	s := scanner(t)
	for shift := -len(secret) - 1; shift <= 1; shift++ {
		content := bytes.Repeat([]byte{'.'}, 2*chunk+100)
		at := chunk + shift
		copy(content[at:], secret)
		rep, err := s.Reader("x", bytes.NewReader(content))
		if err != nil || len(rep.Findings) != 1 || rep.Findings[0].Offset != int64(at) {
			t.Fatalf("at %d: %v %v", at, rep.Findings, err)
		}
	}
}

func TestAThousandSecretsAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var needles []Needle
	for i := range 1000 {
		v := make([]byte, 24)
		for j := range v {
			v[j] = byte(r.Uint32())
		}
		needles = append(needles, Needle{fmt.Sprint("canary-", i), v})
	}
	s := scanner(t, needles...)
	content := make([]byte, 16<<20)
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	copy(content[5_000_000:], base64.StdEncoding.EncodeToString(needles[777].Value))
	rep, err := s.Reader("x", bytes.NewReader(content))
	if err != nil || len(rep.Findings) != 1 || rep.Findings[0].Needle != "canary-777" {
		t.Errorf("%v %v", rep.Findings, err)
	}
}

func TestATreeIsSearchedWhole(t *testing.T) {
	s := scanner(t)
	root := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("member/snap/db", bytes.Repeat([]byte("clean "), 1000))
	wal := write("member/wal/0.wal", append(bytes.Repeat([]byte{0}, 10_000), secret...))
	layer := write("blobs/layer.gz", gzipped(append(bytes.Repeat([]byte("layer"), 100_000), secret...)))
	if err := os.Symlink("/etc", filepath.Join(root, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	rep, err := s.Tree(t.Context(), root)
	if err != nil || rep.Files != 3 {
		t.Fatalf("%+v %v", rep, err)
	}
	places := map[string]bool{}
	for _, f := range rep.Findings {
		places[strings.TrimSuffix(f.Place, " (gzip)")] = true
		if strings.Contains(f.String(), "Example") {
			t.Errorf("a finding tells the value: %s", f)
		}
	}
	if !places[wal] || !places[layer] {
		t.Errorf("found %v", rep.Findings)
	}
	if _, err := s.Tree(t.Context(), filepath.Join(root, "none")); err == nil {
		t.Error("a folder that is not there was searched")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Tree(ctx, root); err == nil {
		t.Error("a search that was broken off says that it is done")
	}
}

func TestManyOfOneDoNotHideAnother(t *testing.T) {
	s := scanner(t, Needle{"control", []byte("control-value-of-the-test")}, Needle{"token", secret})
	content := append(bytes.Repeat([]byte("control-value-of-the-test "), 1000), secret...)
	rep, err := s.Reader("x", bytes.NewReader(content))
	if err != nil || len(rep.Findings) != maxFindings+1 || rep.Findings[maxFindings].Needle != "token" {
		t.Errorf("%d findings, %v", len(rep.Findings), err)
	}
}

func TestAFileThatCannotBeReadIsNoCleanFile(t *testing.T) {
	s := scanner(t)
	if _, err := s.Reader("x", iotest.ErrReader(os.ErrPermission)); err == nil {
		t.Error("an unreadable stream is clean")
	}
	if _, err := s.File(t.TempDir()); err == nil {
		t.Error("a folder is a clean file")
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	if _, err := New([]Needle{{"pin", []byte("hunter2hunt")}}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if s := fmt.Sprintf("%v %+v", Needle{"token", secret}, []Needle{{"token", secret}}); strings.Contains(s, "Example") {
		t.Errorf("a needle tells its value: %s", s)
	}
}

func BenchmarkScan(b *testing.B) {
	var needles []Needle
	for i := range 1000 {
		needles = append(needles, Needle{fmt.Sprint(i), []byte(fmt.Sprintf("canary-%024d", i))})
	}
	s := scanner(b, needles...)
	content := make([]byte, 64<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := s.Reader("x", bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
	}
}
