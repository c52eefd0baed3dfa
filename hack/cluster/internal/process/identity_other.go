//go:build unix && !linux

package process

import (
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// startOf asks ps when a process began; a zombie counts as gone.
func startOf(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "state=,lstart=", "-p", strconv.Itoa(pid)).Output()
	state, start, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if err != nil || start == "" || strings.HasPrefix(state, "Z") {
		return "", fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	return strings.Join(strings.Fields(start), " "), nil
}

// BootID identifies this boot of the machine.
var BootID = sync.OnceValue(func() string {
	out, err := exec.Command("sysctl", "-n", "kern.bootsessionuuid").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})
