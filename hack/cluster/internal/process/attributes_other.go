//go:build unix && !linux

package process

import "syscall"

// Child would tie a command to its caller; here it ends by itself.
func Child() *syscall.SysProcAttr { return nil }

func attributes(Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
