package process

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
)

// startOf returns the start time of a process as its stat file has it.
func startOf(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	return parseStat(string(data))
}

// parseStat takes the start time (field 22) out of a stat line. The program's name (field 2) may hold spaces and
// brackets, so fields are counted from the last closing bracket. A zombie counts as gone, unless more threads than the
// first are left (field 20): so it looks while a thread that is not the first becomes another program, as Helper does.
func parseStat(stat string) (string, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", fmt.Errorf("stat line without a program name: %q", stat)
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("stat line with %d fields after the name", len(fields))
	}
	if state := fields[0]; state == "Z" && (fields[17] == "0" || fields[17] == "1") || state == "X" {
		return "", fmt.Errorf("process has ended: %w", fs.ErrNotExist)
	}
	return fields[19], nil
}

// BootID identifies this boot of the machine: start times and process ids begin anew with the next one.
var BootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
})
