// Command stagehand is what the demo needs inside a cluster that is not its own, as one static program:
//
//	stagehand install DIR                 copies itself, so that an image of anybody's can run it
//	stagehand postgres --dir D ...        a PostgreSQL of the image that it runs in, with TLS and a certificate of its own
//	stagehand receive FILE                writes standard input to a new file: how the key-encryption key comes to its volume
//	stagehand wait                        stays until it is ended
//	stagehand say TEXT                    prints a line and ends: a control value for the search of logs
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lethe-dev/lethe/test/pg"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "stagehand:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "install":
		return install(args[1])
	case len(args) == 2 && args[0] == "receive":
		return receive(args[1], in)
	case len(args) == 2 && args[0] == "say":
		_, err := fmt.Fprintln(out, args[1])
		return err
	case len(args) == 1 && args[0] == "wait":
		<-ctx.Done()
		return nil
	case len(args) > 0 && args[0] == "postgres":
		return postgres(ctx, args[1:], out)
	default:
		return errors.New("say what to do: install DIR, postgres --dir D --listen ADDRESS:PORT --password-file F, receive FILE, say TEXT or wait")
	}
}

// install copies this program into a folder.
func install(dir string) (err error) {
	from, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "stagehand"), content, 0o755)
}

// receive writes a file that was not there, readable for its owner's group: the keyserver's. Half of one is never
// under the name.
func receive(path string, in io.Reader) error {
	const most = 1 << 20
	content, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	if len(content) == 0 || len(content) > most {
		return fmt.Errorf("standard input holds %d bytes: want some, and at most %d", len(content), most)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already", path)
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o440); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temporary, path)
}

// Ready is the line that tells how the server is reached.
type Ready struct {
	Host string `json:"host"`
	Port int    `json:"port"`
	CA   string `json:"ca"` // PEM
}

// postgres runs a server until it is ended.
func postgres(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("postgres", flag.ContinueOnError)
	dir := flags.String("dir", "", "new folder for everything that the server keeps")
	listen := flags.String("listen", "", "address and port; loopback is listened on as well")
	passwordFile := flags.String("password-file", "", "file with the superuser's password")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, text, err := net.SplitHostPort(*listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	var port int
	if _, err := fmt.Sscan(text, &port); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	password, err := os.ReadFile(*passwordFile)
	if err != nil {
		return fmt.Errorf("--password-file: %w", err)
	}
	addresses := []string{host}
	if host != "127.0.0.1" {
		addresses = append(addresses, "127.0.0.1")
	}
	server, err := pg.Start(ctx, pg.Options{Dir: *dir, ListenAddresses: addresses, Port: port, Password: strings.TrimSpace(string(password))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		return fmt.Errorf("read the server's authority: %w", err)
	}
	if err := json.NewEncoder(out).Encode(Ready{Host: server.Host, Port: server.Port, CA: string(ca)}); err != nil {
		return fmt.Errorf("say where the server is: %w", err)
	}
	<-ctx.Done()
	return nil
}
