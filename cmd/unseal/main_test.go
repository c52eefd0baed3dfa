package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/lethe-dev/lethe/internal/keyapi"
)

func folders(t *testing.T) options {
	t.Helper()
	o := options{dir: filepath.Join(t.TempDir(), "credentials"), envFile: filepath.Join(t.TempDir(), "env", "env")}
	for _, dir := range []string{o.dir, filepath.Dir(o.envFile)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// content is every file of a folder, with its mode.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()+" "+info.Mode().String()] = string(b)
	}
	return out
}

func items() keyapi.SecretBundle {
	return keyapi.SecretBundle{Items: []keyapi.SecretItem{
		{Name: "telegram", Value: []byte("4711:canary\n'\x00")},
		{Name: "openai", EnvName: "OPENAI_KEY", Value: []byte(`sk-$a "b" \c # d`)},
		{Name: "other", EnvName: "OTHER", Value: []byte("")},
	}}
}

func TestDeliver(t *testing.T) {
	o := folders(t)
	// Twice: an init container may run again.
	for range 2 {
		if err := deliver(o, items()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"telegram -r--r-----": "4711:canary\n'\x00"}, content(t, o.dir)); diff != "" {
		t.Error(diff)
	}
	want := "OPENAI_KEY='sk-$a \"b\" \\c # d'\nOTHER=''\n"
	if diff := cmp.Diff(map[string]string{"env -r--r-----": want}, content(t, filepath.Dir(o.envFile))); diff != "" {
		t.Error(diff)
	}
}

func TestDeliverRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		item keyapi.SecretItem
		env  bool
		says string
	}{
		"a quote":            {keyapi.SecretItem{Name: "a", EnvName: "A", Value: []byte("canary'x")}, true, "delivery File"},
		"a line break":       {keyapi.SecretItem{Name: "a", EnvName: "A", Value: []byte("canary\nB='x")}, true, "delivery File"},
		"a carriage return":  {keyapi.SecretItem{Name: "a", EnvName: "A", Value: []byte("canary\r")}, true, "delivery File"},
		"a zero byte":        {keyapi.SecretItem{Name: "a", EnvName: "A", Value: []byte("canary\x00")}, true, "delivery File"},
		"no variable's name": {keyapi.SecretItem{Name: "a", EnvName: "1A=", Value: []byte("canary")}, true, "name of a variable"},
		"no file for it":     {keyapi.SecretItem{Name: "a", EnvName: "A", Value: []byte("canary")}, false, "--env-file"},
		"a path for a name":  {keyapi.SecretItem{Name: "../a", Value: []byte("canary")}, true, "name of a file"},
		"a folder's name":    {keyapi.SecretItem{Name: "..", Value: []byte("canary")}, true, "name of a file"},
	} {
		t.Run(name, func(t *testing.T) {
			o := folders(t)
			if !tc.env {
				o.envFile = ""
			}
			err := deliver(o, keyapi.SecretBundle{Items: []keyapi.SecretItem{{Name: "good", Value: []byte("v")}, tc.item}})
			if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v", err)
			}
			if left := content(t, o.dir); len(left) > 0 {
				t.Errorf("files were written all the same: %d", len(left))
			}
		})
	}
	o := folders(t)
	o.dir = filepath.Join(o.dir, "none")
	if err := deliver(o, items()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("without a folder: %v", err)
	}
}

// TestEnvFileIsReadBack reads the file as a kubelet does: NAME=, a quote, everything up to the next quote.
func TestEnvFileIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")
		file, err := envFile([]keyapi.SecretItem{{Name: "a", EnvName: "A", Value: value}, {Name: "b", EnvName: "B", Value: []byte("end")}})
		if err != nil {
			if !strings.ContainsAny(string(value), "'\n\r\x00") {
				t.Fatalf("%q refused: %v", value, err)
			}
			return
		}
		lines := strings.Split(strings.TrimSuffix(string(file), "\n"), "\n")
		if len(lines) != 2 || lines[1] != "B='end'" {
			t.Fatalf("%q gives %q", value, file)
		}
		rest, ok := strings.CutPrefix(lines[0], "A='")
		got, after, closed := strings.Cut(rest, "'")
		if !ok || !closed || after != "" || got != string(value) {
			t.Fatalf("%q is read as %q", value, got)
		}
	})
}

// templates are a bot's files as the kubelet lays them out: links to what lies in a folder of a time.
func templates(t *testing.T, o *options, contents ...string) {
	t.Helper()
	o.templates, o.files = t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(o.templates, "..2026"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..2026", filepath.Join(o.templates, "..data")); err != nil {
		t.Fatal(err)
	}
	for i, content := range contents {
		name := strconv.Itoa(i)
		if err := os.WriteFile(filepath.Join(o.templates, "..2026", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(o.templates, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFilesAreFilledIn: whatever its delivery is, a credential can be named in a file; and the file is as private as
// the credential.
func TestFilesAreFilledIn(t *testing.T) {
	o := folders(t)
	templates(t, &o, "token = ${credential:telegram}\nkey = ${credential:openai}\n", "nothing", "$${credential:telegram}")
	for range 2 {
		if err := deliver(o, items()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"0 -r--r-----": "token = 4711:canary\n'\x00\nkey = sk-$a \"b\" \\c # d\n",
		"1 -r--r-----": "nothing",
		"2 -r--r-----": "${credential:telegram}",
	}
	if diff := cmp.Diff(want, content(t, o.files)); diff != "" {
		t.Error(diff)
	}
	if len(content(t, o.dir)) != 1 {
		t.Error("the credentials themselves are not there")
	}
}

func TestFilesThatCannotBeFilledIn(t *testing.T) {
	for file, says := range map[string]string{
		"${credential:nobody}":                         "nobody",
		"${credential:telegram":                        "must be followed",
		strings.Repeat("${credential:big}", 1024*1024): "1048576 bytes",
	} {
		o := folders(t)
		templates(t, &o, "good", file)
		bundle := items()
		bundle.Items = append(bundle.Items, keyapi.SecretItem{Name: "big", Value: []byte("canary")})
		err := deliver(o, bundle)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%.40q: %v", file, err)
		}
		if left := len(content(t, o.dir)) + len(content(t, o.files)); left > 0 {
			t.Errorf("%.40q: %d files were written all the same", file, left)
		}
	}
	o := folders(t)
	o.templates, o.files = filepath.Join(o.dir, "none"), o.dir
	if err := deliver(o, items()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("without a folder: %v", err)
	}
}

// scripted answers as it is told, one error after the other, then with a bundle.
type scripted struct {
	errs  []error
	asked int
}

func (s *scripted) Unseal(context.Context) (keyapi.SecretBundle, error) {
	s.asked++
	if s.asked <= len(s.errs) {
		return keyapi.SecretBundle{}, s.errs[s.asked-1]
	}
	return items(), nil
}

// running lets a fake clock run on whenever somebody waits for it.
func running(t *testing.T) clock.Clock {
	t.Helper()
	c := clocktesting.NewFakeClock(time.Unix(0, 0))
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				if c.HasWaiters() {
					c.Step(250 * time.Millisecond)
				}
			}
		}
	}()
	return c
}

func TestAskGoesOn(t *testing.T) {
	down := errors.New("connection refused")
	s := &scripted{errs: []error{down, down, down}}
	if _, err := ask(t.Context(), s, running(t), time.Minute); err != nil || s.asked != 4 {
		t.Errorf("asked %d times: %v", s.asked, err)
	}
	s = &scripted{errs: make([]error, 1000)}
	for i := range s.errs {
		s.errs[i] = down
	}
	_, err := ask(t.Context(), s, running(t), time.Minute)
	if err == nil || !errors.Is(err, down) || !strings.Contains(err.Error(), "within 1m0s") || s.asked < 40 || s.asked > 70 {
		t.Errorf("asked %d times: %v", s.asked, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ask(ctx, &scripted{errs: s.errs}, clocktesting.NewFakeClock(time.Unix(0, 0)), time.Minute); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("stopped: %v", err)
	}
}

func TestFlags(t *testing.T) {
	all := []string{"--url=https://k:1", "--ca-file=c", "--token-file=t", "--dir=d"}
	if o, err := parse(all); err != nil || o.timeout != time.Minute || o.envFile != "" {
		t.Errorf("got %+v, %v", o, err)
	}
	for i := range all {
		if _, err := parse(append(append([]string{}, all[:i]...), all[i+1:]...)); err == nil {
			t.Errorf("accepted without %s", all[i])
		}
	}
	for _, more := range []string{"--timeout=0s", "extra", "--unknown", "--templates=x", "--files=x"} {
		if _, err := parse(append(all, more)); err == nil {
			t.Errorf("accepted %s", more)
		}
	}
	if _, err := parse([]string{"--help"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want int
	}{
		"no flags":   {nil, exitUsage},
		"plain HTTP": {[]string{"--url=http://127.0.0.1:1", "--ca-file=c", "--token-file=" + token, "--dir=d"}, exitUsage},
		"no answer":  {[]string{"--url=https://127.0.0.1:1", "--ca-file=c", "--token-file=" + token, "--dir=d", "--timeout=1ms"}, exitRefused},
	} {
		code, message := run(t.Context(), tc.args)
		if code != tc.want || message == "" {
			t.Errorf("%s: %d %q", name, code, message)
		}
	}
}
