// Command image wraps static binaries as a container image, without a container engine: an archive of the form that
// "docker save" writes, which "ctr images import", "docker load" and "crane push" read. The same input gives the same
// bytes.
//
//	go run ./hack/image -o dist/lethe.tar                                  Lethe itself: /manager /keyserver /unseal /sweeper
//	go run ./hack/image -o bot.tar --name bot:demo --binary bin/bot        any other static binary, as the entry point
//	go run ./hack/image -o db.tar --binary bin/starter --with list         the same, and files of this machine under their own names
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// programs are what Lethe's own image holds: path in the image → package.
var programs = []struct{ path, pkg string }{
	{"manager", "."},
	{"keyserver", "./cmd/keyserver"},
	{"unseal", "./cmd/unseal"},
	{"sweeper", "./cmd/sweeper"},
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	name := flags.String("name", "lethe:dev", "name and tag of the image")
	binary := flags.String("binary", "", "wrap this static binary as the entry point, instead of building Lethe's own programs")
	with := flags.String("with", "", "file with absolute paths, one a line: these files of this machine are in the image too, under the same names")
	output := flags.String("o", "", "file to write (this or --rootfs is required)")
	rootfs := flags.String("rootfs", "", "write the image's files into this new folder instead, for a Dockerfile")
	version := flags.String("version", "", "version that the programs report; left out, \"devel\"")
	arch := flags.String("arch", runtime.GOARCH, "architecture of the image: amd64 or arm64")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if (*output == "") == (*rootfs == "") {
		return errors.New("say what to write: either -o FILE or --rootfs FOLDER")
	}
	var files []file
	var entrypoint []string
	if *binary != "" {
		base := "/" + filepath.Base(*binary)
		content, err := os.ReadFile(*binary)
		if err != nil {
			return fmt.Errorf("--binary: %w", err)
		}
		files, entrypoint = []file{{path: base[1:], mode: 0o755, content: content}}, []string{base}
	} else {
		var err error
		if files, err = buildPrograms(ctx, *version, *arch); err != nil {
			return err
		}
		entrypoint = []string{"/manager"}
	}
	for _, f := range files {
		if err := checkStatic(f); err != nil {
			return err
		}
	}
	if *with != "" {
		more, err := filesOfThisMachine(*with)
		if err != nil {
			return fmt.Errorf("--with: %w", err)
		}
		files = append(files, more...)
	}
	if *rootfs != "" {
		return writeFolder(ctx, *rootfs, files)
	}
	if err := write(ctx, *output, *name, *arch, entrypoint, files); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "wrote %s as %s\n", *name, *output)
	return nil
}

// filesOfThisMachine reads the files that a list names. What is a link here is a file in the image.
func filesOfThisMachine(list string) ([]file, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var files []file
	for path := range strings.Lines(string(text)) {
		path = strings.TrimSpace(path)
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, fmt.Errorf("%q is no clean absolute path", path)
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: path[1:], mode: int64(info.Mode().Perm() | 0o444), content: content})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s names no file", list)
	}
	return files, nil
}

// buildPrograms compiles Lethe's programs. -trimpath, an empty build ID and no VCS stamp make the bytes depend on the
// source alone.
func buildPrograms(ctx context.Context, version, arch string) ([]file, error) {
	folder, err := os.MkdirTemp("", "lethe-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	// All at once: each is linked by one processor. Without a name for each, a program is called as its folder, and
	// that of the root as the module.
	args := []string{"build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X github.com/lethe-dev/lethe/internal/version.version=" + version, "-o", folder + "/"}
	for _, p := range programs {
		fmt.Fprintln(os.Stderr, "building", "/"+p.path, "...")
		args = append(args, p.pkg)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the programs: %w", err)
	}
	files := make([]file, 0, len(programs))
	for _, p := range programs {
		built := filepath.Base(p.pkg)
		if p.pkg == "." {
			built = "lethe"
		}
		content, err := os.ReadFile(filepath.Join(folder, built))
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: p.path, mode: 0o755, content: content})
	}
	return files, nil
}
