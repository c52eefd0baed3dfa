package process

import "syscall"

func attributes(s Spec) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if s.OwnMounts {
		a.Cloneflags = syscall.CLONE_NEWNS
	}
	return a
}
