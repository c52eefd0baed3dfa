// Command whatsapp-bot is a small bot on go.mau.fi/whatsmeow: it keeps its session in SQLite, goes out through the proxy that its
// configuration names, says truthfully whether it is connected, and answers text with text.
//
//	whatsapp-bot run CONFIG       until it is ended
//	whatsapp-bot ready CONFIG     what the running one says; exit code 0 when it is paired and connected
//	whatsapp-bot pairing CONFIG   the pairing code, which is in the home of the bot and in no log: whoever has it can link the account
//
// WHATSAPP_NOISE_ROOT (hex) replaces the key that WhatsApp's servers are known by, for a stand-in.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types/events"
	waLog "go.mau.fi/whatsmeow/util/log"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite"
)

type config struct {
	Store  string `json:"store"`  // path of the database
	Proxy  string `json:"proxy"`  // URL; without one, straight out
	Listen string `json:"listen"` // address of /ready, on loopback
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "whatsapp-bot:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: whatsapp-bot run|ready|pairing CONFIG")
	}
	content, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	cfg := config{Listen: "127.0.0.1:8080"}
	if json.Unmarshal(content, &cfg) != nil || cfg.Store == "" {
		return fmt.Errorf("%s is not the JSON that was wanted", args[1]) // no more: it holds a password
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	code := filepath.Join(home, ".local", "state", "whatsapp-bot", "pairing-code")
	switch args[0] {
	case "run":
		return run(ctx, cfg, code)
	case "ready":
		return ask(ctx, cfg, out)
	case "pairing":
		shown, err := os.ReadFile(code)
		if err == nil {
			_, err = out.Write(shown)
		}
		return err
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func run(ctx context.Context, cfg config, code string) error {
	if root, err := hex.DecodeString(os.Getenv("WHATSAPP_NOISE_ROOT")); err == nil && len(root) == len(whatsmeow.WACertPubKey) {
		whatsmeow.WACertPubKey = [32]byte(root)
	}
	logger := waLog.Stdout("whatsapp-bot", "WARN", false)
	container, err := sqlstore.New(ctx, "sqlite", "file:"+cfg.Store+"?_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)", logger)
	if err != nil {
		return err
	}
	defer func() { _ = container.Close() }()
	device, err := container.GetFirstDevice(ctx)
	if err != nil {
		return err
	}
	bot := whatsmeow.NewClient(device, logger)
	if cfg.Proxy != "" {
		if err := bot.SetProxyAddress(cfg.Proxy); err != nil {
			return errors.New("the proxy's URL is not one")
		}
	}
	paired, ended := &atomic.Bool{}, make(chan error, 1)
	paired.Store(device.ID != nil)
	heard := func(event any) {
		switch e := event.(type) {
		case *events.PairSuccess:
			paired.Store(true)
		case *events.LoggedOut: // the next start pairs anew
			ended <- errors.New("WhatsApp has logged this device out")
		case *events.Message:
			if text := e.Message.GetConversation(); text != "" && !e.Info.IsFromMe {
				if _, err := bot.SendMessage(ctx, e.Info.Chat, &waE2E.Message{Conversation: proto.String("You said: " + text)}); err != nil {
					logger.Errorf("Answer not sent: %v", err)
				}
			}
		}
	}
	server := &http.Server{Addr: cfg.Listen, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case !paired.Load():
			http.Error(w, "not paired", http.StatusServiceUnavailable)
		case !bot.IsLoggedIn() || !bot.IsConnected():
			http.Error(w, "not connected", http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(w, "connected\n")
		}
	})}
	go func() { ended <- server.ListenAndServe() }()
	defer func() { _ = server.Close() }()
	// The client looks at its socket without its lock once the context of a connection ends, so that one ends after
	// the connection.
	link, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go func() { ended <- connect(ctx, link, bot, heard, code) }()
	defer bot.Disconnect()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// connect connects, and connects again until ctx ends, and shows codes to pair it with while it is not paired. A
// connection lasts no longer than link. It returns what ends the bot, and nothing else.
func connect(ctx, link context.Context, bot *whatsmeow.Client, heard func(any), code string) error {
	if err := os.MkdirAll(filepath.Dir(code), 0o700); err != nil {
		return err
	}
	bot.EnableAutoReconnect = false // here
	bot.AddEventHandler(heard)
	for ctx.Err() == nil {
		var codes <-chan whatsmeow.QRChannelItem
		var err error
		if bot.Store.ID == nil {
			bot.RemoveEventHandlers() // those too of codes that nobody reads any more
			bot.AddEventHandler(heard)
			codes, err = bot.GetQRChannel(ctx)
		}
		if err == nil {
			err = bot.ConnectContext(link)
		}
		if err != nil && !errors.Is(err, whatsmeow.ErrAlreadyConnected) {
			bot.Log.Warnf("Not connected: %v", err)
		} else if codes != nil {
			if err := show(codes, code); err != nil {
				return err
			}
		}
		wait(ctx, 2*time.Second)
	}
	return nil
}

// show keeps the present code in its file for as long as there is one.
func show(codes <-chan whatsmeow.QRChannelItem, code string) (err error) {
	for item := range codes {
		if item.Event == whatsmeow.QRChannelEventCode {
			err = errors.Join(err, os.WriteFile(code, []byte(item.Code+"\n"), 0o600))
		}
	}
	return errors.Join(err, os.RemoveAll(code))
}

func wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func ask(ctx context.Context, cfg config, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+cfg.Listen+"/ready", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 200))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(string(said))
	}
	if err == nil {
		_, err = out.Write(said)
	}
	return err
}
