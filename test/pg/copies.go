package pg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Resume starts a server again that was halted, on the same port.
func (s *Server) Resume(ctx context.Context) error {
	bin, err := Binaries()
	if err != nil {
		return err
	}
	attributes, err := s.unprivileged()
	if err != nil {
		return err
	}
	return s.launch(ctx, bin, attributes)
}

// Crash kills the server as a power cut would, apart from what the machine itself remembers.
func (s *Server) Crash() error {
	if err := syscall.Kill(-s.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill postgres: %w", err)
	}
	s.awaitEnd(10 * time.Second)
	if err := os.Remove(filepath.Join(s.Dir, "data", "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pid file: %w", err)
	}
	return nil
}

// Save halts the server, copies its files as a backup of the machine would, and starts it again.
func (s *Server) Save(ctx context.Context, name string) error {
	if err := s.Halt(); err != nil {
		return err
	}
	if err := copyFiles(ctx, filepath.Join(s.Dir, "data"), filepath.Join(s.Dir, name)); err != nil {
		return err
	}
	return s.Resume(ctx)
}

// Restore halts the server, puts the files of Save in place of its own, and starts it again. Settings are added to
// the configuration; a recovery from an archive also begins a new timeline.
func (s *Server) Restore(ctx context.Context, name string, recovery map[string]string) error {
	if err := s.Halt(); err != nil {
		return err
	}
	data := filepath.Join(s.Dir, "data")
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("remove the data folder: %w", err)
	}
	if err := copyFiles(ctx, filepath.Join(s.Dir, name), data); err != nil {
		return err
	}
	if len(recovery) > 0 {
		var conf bytes.Buffer
		for setting, value := range recovery {
			fmt.Fprintf(&conf, "%s = '%s'\n", setting, value)
		}
		f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("open postgresql.conf: %w", err)
		}
		_, err = f.Write(conf.Bytes())
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write postgresql.conf: %w", err)
		}
		signal, err := os.Create(filepath.Join(data, "recovery.signal"))
		if err != nil {
			return fmt.Errorf("ask for a recovery: %w", err)
		}
		if err := signal.Close(); err != nil {
			return fmt.Errorf("ask for a recovery: %w", err)
		}
	}
	return s.Resume(ctx)
}

func copyFiles(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the data folder: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Standby makes a copy by pg_basebackup that follows the server, on a free port of the same address.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	bin, err := Binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lethe-standby-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the standby: %w", err)
	}
	out := &Server{Dir: dir, Host: s.Host, Password: s.Password, CAFile: s.CAFile, LogFile: filepath.Join(dir, "log")}
	if err := out.follow(ctx, bin, s); err != nil {
		return nil, errors.Join(err, out.Stop())
	}
	return out, nil
}

func (s *Server) follow(ctx context.Context, bin string, primary *Server) error {
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return fmt.Errorf("open the standby's folder: %w", err)
	}
	for _, name := range []string{"password", "server.crt", "server.key"} {
		if err := copyFiles(ctx, filepath.Join(primary.Dir, name), filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	data := filepath.Join(s.Dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("make the standby's data folder: %w", err)
	}
	attributes, err := s.unprivileged()
	if err != nil {
		return err
	}
	backup := exec.CommandContext(ctx, filepath.Join(bin, "pg_basebackup"), "-D", data, "-R", "-X", "stream", "-c", "fast", "-d",
		primary.URL(Superuser, primary.Password, "postgres"))
	backup.SysProcAttr, backup.Dir, backup.Env = attributes, s.Dir, append(os.Environ(), "HOME="+s.Dir)
	if out, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, bytes.TrimSpace(out))
	}
	if s.Port, err = freePort(s.Host); err != nil {
		return err
	}
	return s.launch(ctx, bin, attributes)
}

// Dump writes a database as SQL by pg_dump, and Load runs such SQL in another.
func (s *Server) Dump(ctx context.Context, database string) ([]byte, error) {
	out, err := s.client(ctx, "pg_dump", database, nil)
	return out, err
}

// Load runs SQL by psql.
func (s *Server) Load(ctx context.Context, database string, sql []byte) error {
	_, err := s.client(ctx, "psql", database, sql)
	return err
}

func (s *Server) client(ctx context.Context, program, database string, in []byte) ([]byte, error) {
	bin, err := Binaries()
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), "-d", s.URL(Superuser, s.Password, database))
	if program == "psql" {
		cmd.Args = append(cmd.Args, "-v", "ON_ERROR_STOP=1", "-q")
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
