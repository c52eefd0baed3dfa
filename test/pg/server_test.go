package pg_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lethe-dev/lethe/test/pg"
)

func TestServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := pg.Start(ctx, pg.Options{ListenAddresses: []string{"127.0.0.1"}, Names: []string{"localhost"}, Settings: map[string]string{"work_mem": "5MB"}})
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})

	t.Run("it uses TLS, SCRAM and the settings", func(t *testing.T) {
		var tls bool
		var memory, stored string
		err := s.Admin(t, "postgres").QueryRow(ctx, `SELECT (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
			current_setting('work_mem'), (SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'postgres')`).Scan(&tls, &memory, &stored)
		if err != nil {
			t.Fatal(err)
		}
		if !tls || memory != "5MB" || stored != "SCRAM-SHA-256" {
			t.Errorf("ssl %v, work_mem %s, password %s", tls, memory, stored)
		}
	})
	t.Run("it takes no connection without TLS", func(t *testing.T) {
		url := strings.Replace(s.URL(pg.Superuser, s.Password, "postgres"), "sslmode=verify-full", "sslmode=disable", 1)
		if conn, err := pgx.Connect(ctx, url); err == nil {
			_ = conn.Close(ctx)
			t.Error("connected without TLS")
		}
	})
	t.Run("it takes no wrong password", func(t *testing.T) {
		if conn, err := pgx.Connect(ctx, s.URL(pg.Superuser, "wrong", "postgres")); err == nil {
			_ = conn.Close(ctx)
			t.Error("connected with a wrong password")
		}
	})
	t.Run("another process can find and stop it, and nothing is left", func(t *testing.T) {
		o, err := pg.Open(s.Dir)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if o.Port != s.Port || o.Host != s.Host || o.PID != s.PID {
			t.Errorf("opened %s:%d (%d), want %s:%d (%d)", o.Host, o.Port, o.PID, s.Host, s.Port, s.PID)
		}
		if conn, err := o.Connect(ctx, "postgres"); err != nil {
			t.Errorf("connect: %v", err)
		} else {
			_ = conn.Close(ctx)
		}
		if err := o.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
			t.Errorf("the folder is still there: %v", err)
		}
	})
}
