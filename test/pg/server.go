// Package pg starts a real PostgreSQL out of Debian's packages, for tests, benches and the demo. Every server has a
// certificate authority of its own, takes TLS connections only, and knows no other login than SCRAM-SHA-256.
// `hack/postgres.sh` installs the package.
package pg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/test/ports"
)

// Superuser that initdb makes.
const Superuser = "postgres"

// Options say what server to start.
type Options struct {
	// Dir to keep everything in. It must not exist or be empty. Empty: a new folder under the system's temporary one.
	Dir string
	// ListenAddresses to listen on; the first is Server.Host. Default: 127.0.0.1. All of them are in the certificate.
	ListenAddresses []string
	// Port; 0: a free one.
	Port int
	// Names that the certificate holds beside the addresses.
	Names []string
	// Password of Superuser; empty: a new one.
	Password string
	// FSync writes through to the disk, as a real server does. Without it a server is faster and does not survive a
	// power cut.
	FSync bool
	// Settings of postgresql.conf on top of ours.
	Settings map[string]string
}

// Server is a running PostgreSQL.
type Server struct {
	Dir      string
	Host     string
	Port     int
	Password string // of Superuser
	CAFile   string // PEM of the certificate authority that the server's certificate chains to
	LogFile  string
	PID      int

	exited chan struct{} // closed when the process has been waited for; nil for an opened server
}

// ErrNotInstalled says that the machine has no PostgreSQL server.
var ErrNotInstalled = errors.New("no PostgreSQL server is installed: run hack/postgres.sh as root, or install the package postgresql")

// Binaries finds the folder with initdb and postgres of the newest version, or ErrNotInstalled.
func Binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", fmt.Errorf("look for PostgreSQL: %w", err)
	}
	if len(found) == 0 {
		path, err := exec.LookPath("initdb")
		if err != nil {
			return "", ErrNotInstalled
		}
		return filepath.Dir(path), nil
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// Start makes a database cluster and starts a server on it; it answers when Start returns. The server is a process
// group of its own and outlives the program that started it, unless that calls Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	bin, err := Binaries()
	if err != nil {
		return nil, err
	}
	if len(o.ListenAddresses) == 0 {
		o.ListenAddresses = []string{"127.0.0.1"}
	}
	s := &Server{Dir: o.Dir, Host: o.ListenAddresses[0], Port: o.Port, Password: o.Password}
	if s.Password == "" {
		s.Password = random()
	}
	if s.Dir == "" {
		if s.Dir, err = os.MkdirTemp("", "lethe-postgres-"); err != nil {
			return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
		}
	}
	if err := s.start(ctx, bin, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, bin string, o Options) error {
	s.CAFile, s.LogFile = filepath.Join(s.Dir, "ca.crt"), filepath.Join(s.Dir, "log")
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	data := filepath.Join(s.Dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "password"), []byte(s.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the superuser's password: %w", err)
	}
	if err := writeCertificates(s.Dir, append(slices.Clone(o.ListenAddresses), o.Names...)); err != nil {
		return err
	}
	attributes, err := s.unprivileged()
	if err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", data, "--username", Superuser, "--pwfile",
		filepath.Join(s.Dir, "password"), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attributes, s.Dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if s.Port == 0 {
		if s.Port, err = freePort(s.Host); err != nil {
			return err
		}
	}
	if err := s.configure(data, o); err != nil {
		return err
	}
	return s.launch(ctx, bin, attributes)
}

// launch starts a server on the data folder that is there.
func (s *Server) launch(ctx context.Context, bin string, attributes *syscall.SysProcAttr) error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(s.Dir, "data"), "-c", "port="+strconv.Itoa(s.Port))
	server.Env = append(os.Environ(), "HOME="+s.Dir) // a standby looks there for certificates of its own
	server.SysProcAttr, server.Dir, server.Stdout, server.Stderr = attributes, s.Dir, log, log
	if err := server.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.PID, s.exited = server.Process.Pid, make(chan struct{})
	go func(exited chan struct{}) {
		_ = server.Wait()
		close(exited)
	}(s.exited)
	return s.awaitReady(ctx)
}

// configure writes the server's settings and who may log in how.
func (s *Server) configure(data string, o Options) error {
	fsync := map[bool]string{true: "on", false: "off"}[o.FSync]
	settings := map[string]string{
		"listen_addresses": strings.Join(o.ListenAddresses, ","), "port": strconv.Itoa(s.Port), "unix_socket_directories": "",
		"ssl": "on", "ssl_cert_file": filepath.Join(s.Dir, "server.crt"), "ssl_key_file": filepath.Join(s.Dir, "server.key"),
		"password_encryption": "scram-sha-256", "fsync": fsync, "full_page_writes": fsync, "synchronous_commit": fsync,
		"shared_buffers": "128MB", "max_connections": "60", "timezone": "Etc/UTC", "log_timezone": "Etc/UTC", "lc_messages": "C",
	}
	maps.Copy(settings, o.Settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open postgresql.conf: %w", err)
	}
	if _, err := f.WriteString(conf.String()); err != nil {
		return errors.Join(fmt.Errorf("write postgresql.conf: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write postgresql.conf: %w", err)
	}
	hba := []byte("hostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n")
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), hba, 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	return nil
}

// unprivileged returns how to start processes as someone other than root, whom PostgreSQL refuses, and gives that
// user the files.
func (s *Server) unprivileged() (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return attributes, nil
	}
	var account *user.User
	var err error
	for _, name := range []string{"postgres", "nobody"} {
		if account, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find an account to run PostgreSQL as: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", account.Username, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", account.Username, err)
	}
	attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, name := range []string{".", "data", "password", "server.crt", "server.key"} {
		if err := os.Lchown(filepath.Join(s.Dir, name), int(uid), int(gid)); err != nil {
			return nil, fmt.Errorf("give PostgreSQL its files: %w", err)
		}
	}
	return attributes, nil
}

// awaitReady waits until the server answers a login, or has ended.
func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := s.Connect(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("postgres ended at once; its log:\n%s", s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w; its log:\n%s", err, s.logTail())
		case <-tick.C:
		}
	}
}

func (s *Server) logTail() string {
	b, err := os.ReadFile(s.LogFile)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// URL of a database for a role, with the certificate checked against the server's own authority.
func (s *Server) URL(role, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, password), Path: "/" + database,
		Host:     net.JoinHostPort(s.Host, strconv.Itoa(s.Port)),
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.CAFile}}.Encode(),
	}
	return u.String()
}

// Connect logs in as the superuser.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.URL(Superuser, s.Password, database))
}

// Exec runs SQL as the superuser.
func (s *Server) Exec(ctx context.Context, database, sql string) error {
	conn, err := s.Connect(ctx, database)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("run SQL: %w", err)
	}
	return nil
}

// Open finds a server that Start made in dir, perhaps in another process, so that Stop can end it.
func Open(dir string) (*Server, error) {
	b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return nil, fmt.Errorf("no running PostgreSQL in %s: %w", dir, err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 6 {
		return nil, fmt.Errorf("no running PostgreSQL in %s: postmaster.pid has %d lines", dir, len(lines))
	}
	password, err := os.ReadFile(filepath.Join(dir, "password"))
	if err != nil {
		return nil, fmt.Errorf("read the superuser's password: %w", err)
	}
	s := &Server{
		Dir: dir, Host: strings.TrimSpace(lines[5]), Password: strings.TrimSpace(string(password)),
		CAFile: filepath.Join(dir, "ca.crt"), LogFile: filepath.Join(dir, "log"),
	}
	if s.Port, err = strconv.Atoi(strings.TrimSpace(lines[3])); err != nil {
		return nil, fmt.Errorf("read the port in postmaster.pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil {
		return nil, fmt.Errorf("read the process in postmaster.pid: %w", err)
	}
	s.PID = pid
	return s, nil
}

// Stop ends the server, politely first, and removes its folder. A server that has already ended is no error.
func (s *Server) Stop() error {
	if err := s.Halt(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("remove PostgreSQL's folder: %w", err)
	}
	return nil
}

// Halt ends the server, politely first, and keeps its folder.
func (s *Server) Halt() error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if !s.running() {
			break
		}
		if err := syscall.Kill(s.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop postgres: %w", err)
		}
		s.awaitEnd(10 * time.Second)
	}
	if s.running() {
		return fmt.Errorf("stop postgres: process %d does not end", s.PID)
	}
	return nil
}

// running says whether the process is there and is still the server of this folder: a pid may be given away again.
func (s *Server) running() bool {
	if s.PID == 0 {
		return false
	}
	if s.exited != nil {
		select {
		case <-s.exited:
			return false
		default:
			return true
		}
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID), "cmdline"))
	return err == nil && slices.Contains(strings.Split(string(b), "\x00"), filepath.Join(s.Dir, "data"))
}

func (s *Server) awaitEnd(most time.Duration) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(most); s.running() && time.Now().Before(end); {
		<-tick.C
	}
}

func random() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand.Read never returns an error
	return hex.EncodeToString(b)
}

func freePort(host string) (int, error) {
	found, err := ports.Free(host, 1)
	if err != nil {
		return 0, err
	}
	return found[0], nil
}
