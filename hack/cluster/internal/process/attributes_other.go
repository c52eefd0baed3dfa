//go:build unix && !linux

package process

import "syscall"

func attributes(Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true}
}
