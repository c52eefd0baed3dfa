package process

import "syscall"

// Child ties a command to its caller: if the caller is killed, so is the command.
func Child() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func attributes(s Spec) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if s.OwnMounts {
		a.Cloneflags = syscall.CLONE_NEWNS
	}
	return a
}
