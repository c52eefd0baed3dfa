// Command gotest runs `go test` and prints what it prints, and counts what ran, so that no test passes by running
// nothing.
//
//	gotest -tally FILE ARGUMENTS OF GO TEST...   runs them; adds the number of top-level tests that ran to FILE
//	gotest -tally FILE -floor FILE               fails when all runs together ran fewer tests than the floor says
//
// A package with test files of which no test ran fails, and so does one of whose tests one skipped itself or never
// ended. The exit code is go's own, or 1 where only gotest found something. Results out of go's cache count: go
// replays them whole.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errs io.Writer) int {
	var folder, tally, floor string
	for len(args) >= 2 {
		switch args[0] {
		case "-C":
			folder = args[1]
		case "-tally":
			tally = args[1]
		case "-floor":
			floor = args[1]
		default:
			return goTest(folder, tally, args, out, errs)
		}
		args = args[2:]
	}
	if floor != "" && tally != "" && len(args) == 0 {
		if err := check(tally, floor); err != nil {
			fmt.Fprintln(errs, "FAIL:", err)
			return 1
		}
		return 0
	}
	return goTest(folder, tally, args, out, errs)
}

// goTest runs go test with the arguments, in the folder.
func goTest(folder, tally string, args []string, out, errs io.Writer) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir, cmd.Stderr = folder, errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintln(errs, "gotest:", err)
		return 1
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(errs, "gotest:", err)
		return 1
	}
	p := newPrinter(out)
	// A line of any length: a failing test may print a whole object. The reader reads to the end, or go would wait
	// for it for ever.
	for in := bufio.NewReader(pipe); ; {
		line, err := in.ReadString('\n')
		if line != "" {
			p.line(line)
		}
		if err != nil {
			break
		}
	}
	code := 0
	if err := cmd.Wait(); err != nil {
		code = 1
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
			code = exit.ExitCode()
		}
	}
	if p.failed && code == 0 {
		code = 1
	}
	if p.ran == 0 && code == 0 {
		p.printf("FAIL\tno test ran at all\n")
		code = 1
	}
	if tally != "" {
		if err := add(tally, p.ran); err != nil {
			fmt.Fprintln(errs, "gotest:", err)
			code = 1
		}
	}
	if code != 0 {
		p.printf("FAIL\n") // go test's own last line, which it leaves out with -json
	}
	return code
}

// add appends one run's number: the runs of hack/test.sh go on beside each other, and a short append is one write.
func add(tally string, ran int) error {
	f, err := os.OpenFile(tally, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, ran)
	return errors.Join(err, f.Close())
}

// check holds the sum of a tally against the floor: one number, below lines that begin with #.
func check(tally, floor string) error {
	ran, err := sum(tally)
	if err != nil {
		return err
	}
	least, err := sum(floor)
	if err != nil {
		return err
	}
	if least <= 0 {
		return fmt.Errorf("%s says no number of tests", floor)
	}
	if ran < least {
		return fmt.Errorf("only %d tests ran, and %s says that there are at least %d: look which part ran nothing; "+
			"when tests were really taken away, lower the number in the same change", ran, floor, least)
	}
	return nil
}

func sum(file string) (n int, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		one, err := strconv.Atoi(line)
		if err != nil {
			return 0, fmt.Errorf("%s: %q is no number", file, line)
		}
		n += one
	}
	return n, nil
}
