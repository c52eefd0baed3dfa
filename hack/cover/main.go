// Command cover reads a coverage profile of go test and prints how much of each package's statements ran, and of all
// of them: `make cover`.
package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cover PROFILE")
		os.Exit(2)
	}
	f, err := os.Open(os.Args[1])
	if err == nil {
		err = summarize(f, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1)
	}
}

// block is one stretch of statements. With -coverpkg the profile has it once for each package whose tests could have
// run it.
type block struct {
	statements int
	ran        bool
}

func summarize(in io.Reader, out io.Writer) error {
	blocks := map[string]block{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		// package/file.go:1.2,3.4 statements times
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return fmt.Errorf("%q is no line of a coverage profile", line)
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return fmt.Errorf("%q is no line of a coverage profile", line)
		}
		blocks[fields[0]] = block{statements, blocks[fields[0]].ran || fields[2] != "0"}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	type sum struct{ ran, all int }
	sums, total := map[string]sum{}, sum{}
	for where, b := range blocks {
		file, _, _ := strings.Cut(where, ":")
		if strings.HasPrefix(path.Base(file), "zz_generated") {
			continue
		}
		s := sums[path.Dir(file)]
		s.all, total.all = s.all+b.statements, total.all+b.statements
		if b.ran {
			s.ran, total.ran = s.ran+b.statements, total.ran+b.statements
		}
		sums[path.Dir(file)] = s
	}
	if total.all == 0 {
		return fmt.Errorf("the profile holds no statement: no test ran")
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(out, "%5.1f %%  %s\n", 100*float64(sums[name].ran)/float64(sums[name].all), name)
	}
	_, err := fmt.Fprintf(out, "%5.1f %%  total: %d of %d statements\n", 100*float64(total.ran)/float64(total.all), total.ran, total.all)
	return err
}
