package stage

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/telegram"
)

// Telegram is the running stand-in.
type Telegram struct {
	API  string // URL of the Bot API, over TLS, on the address that pods reach
	CA   string // the authority of its certificate, in PEM: bots find it where SSL_CERT_FILE says
	Host string
	Port int32
	// Control speaks as users and as BotFather; it listens on loopback only.
	Control *telegram.Client
}

// StartTelegram starts the stand-in on an address of this machine, or finds it running there.
func (s *Stage) StartTelegram(ctx context.Context, address string) (*Telegram, error) {
	tokenFile, ready := s.Path("secrets", "telegram-control"), s.Path("telegram.ready")
	if t, err := s.telegram(ctx, tokenFile, ready, address); err == nil {
		return t, nil
	}
	if err := s.stopProcess(ctx, "telegram"); err != nil {
		return nil, err
	}
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("start the stand-in for Telegram: %w", err)
	}
	if err := os.WriteFile(tokenFile, []byte(Random()), 0o600); err != nil {
		return nil, fmt.Errorf("start the stand-in for Telegram: %w", err)
	}
	err := s.startDetached("telegram", nil, s.Path("bin", "telegram"),
		"--listen", net.JoinHostPort(address, "0"), "--control-listen", "127.0.0.1:0", "--control-token-file", tokenFile, "--ready-file", ready)
	if err != nil {
		return nil, err
	}
	var t *Telegram
	err = Until(ctx, 10*time.Second, "start the stand-in for Telegram", func(ctx context.Context) (string, error) {
		if pid, err := s.running("telegram"); err != nil || pid == 0 {
			return "", Stop(errors.Join(errors.New("it ended; its log is "+s.Path("logs", "telegram.log")), err))
		}
		t, err = s.telegram(ctx, tokenFile, ready, address)
		return "", err
	})
	return t, err
}

// telegram finds a stand-in that answers on the address.
func (s *Stage) telegram(ctx context.Context, tokenFile, ready, address string) (*Telegram, error) {
	if pid, err := s.running("telegram"); err != nil || pid == 0 {
		return nil, errors.Join(errors.New("the stand-in does not run"), err)
	}
	b, err := os.ReadFile(ready)
	if err != nil {
		return nil, fmt.Errorf("read where the stand-in listens: %w", err)
	}
	var where struct{ API, CA, Control string }
	if err := json.Unmarshal(b, &where); err != nil {
		return nil, fmt.Errorf("read where the stand-in listens: %w", err)
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the stand-in's control token: %w", err)
	}
	t := &Telegram{API: where.API, CA: where.CA, Control: &telegram.Client{URL: where.Control, Token: string(token)}}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(where.API, "https://"))
	if err != nil || host != address {
		return nil, fmt.Errorf("the stand-in listens on %s, not on %s", where.API, address)
	}
	if _, err := fmt.Sscan(port, &t.Port); err != nil {
		return nil, fmt.Errorf("read the stand-in's port: %w", err)
	}
	t.Host = host
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.API+"/bot0/getMe", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the stand-in: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(t.CA))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the stand-in: %w", err)
	}
	return t, resp.Body.Close()
}

// StartPostgres starts a PostgreSQL on an address of this machine, or finds it running. Its folder is not the stage's
// own: it runs as a user who cannot enter root's cache.
func (s *Stage) StartPostgres(ctx context.Context, address string) (*pg.Server, error) {
	if dir, err := s.postgresDir(); err == nil {
		if server, err := pg.Open(dir); err == nil && server.Host == address {
			if conn, err := server.Connect(ctx, "postgres"); err == nil {
				return server, conn.Close(ctx)
			}
		}
	}
	if err := s.stopPostgres(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lethe-postgres-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	// Noted before anything is in it, so that whoever cleans up after a crash finds it.
	if err := os.WriteFile(s.Path("postgres-dir"), []byte(dir), 0o600); err != nil {
		return nil, fmt.Errorf("note PostgreSQL's folder: %w", err)
	}
	server, err := pg.Start(ctx, pg.Options{Dir: dir, ListenAddresses: []string{address}})
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return server, nil
}

func (s *Stage) postgresDir() (string, error) {
	b, err := os.ReadFile(s.Path("postgres-dir"))
	return string(b), err
}

// stopPostgres ends the server, if there is one, and removes its folder.
func (s *Stage) stopPostgres() error {
	dir, err := s.postgresDir()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find PostgreSQL's folder: %w", err)
	}
	server, err := pg.Open(dir)
	if err != nil {
		server = &pg.Server{Dir: dir} // none runs: only the folder goes
	}
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	if err := os.Remove(s.Path("postgres-dir")); err != nil {
		return fmt.Errorf("forget PostgreSQL's folder: %w", err)
	}
	return nil
}

// Random is 32 hex digits that nobody can guess.
func Random() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // crypto/rand.Read never returns an error
	return hex.EncodeToString(b)
}

// Down removes every trace: processes, the cluster with its mounts and links, and the stage's folder. What cannot be
// removed is in the error, and the rest goes all the same.
func (s *Stage) Down(ctx context.Context) error {
	err := errors.Join(s.StopOnHost(ctx), s.stopProcess(ctx, "telegram"), s.stopPostgres())
	if err := errors.Join(err, s.DownCluster(ctx)); err != nil {
		return err
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("remove the stage's folder: %w", err)
	}
	return nil
}
