package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/lethe-dev/lethe/internal/sealing"
)

func newKeysGenerateKEK(s *shell) *cobra.Command {
	return &cobra.Command{
		Use:   "generate-kek FILE",
		Short: "Make a key-encryption key in a new file",
		Long: `Write 32 random bytes in base64 to a new file that only its owner can read. The keyserver takes it with --kek-file.
Every key of Lethe is wrapped with it: keep a copy outside the cluster, apart from backups of the cluster. Without it
nothing that was sealed opens again, and whoever has it and a copy of etcd opens everything.`,
		Example: "  kubectl lethe keys generate-kek kek.b64",
		Args:    oneArgument("the file to write"),
		RunE: func(_ *cobra.Command, args []string) error {
			kid, err := generateKEK(s.random, args[0])
			if err != nil {
				return err
			}
			s.note("Wrote key-encryption key %s to %s. Keep a copy outside the cluster.", kid, args[0])
			return nil
		},
	}
}

// generateKEK never writes over a file: it may be the only copy of a key that is in use.
func generateKEK(random io.Reader, path string) (kid string, err error) {
	secret := make([]byte, 32)
	defer clear(secret)
	if _, err := io.ReadFull(random, secret); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	text := append(base64.StdEncoding.AppendEncode(nil, secret), '\n')
	defer clear(text)
	key, err := sealing.ParseKEK(text)
	if err != nil {
		return "", err
	}
	if err := writeNew(path, text); err != nil {
		return "", err
	}
	return key.KID(), nil
}

// writeNew writes a file that must not exist, for its owner only; it is on the disk on return.
func writeNew(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is never written over; name another file", path)
	}
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path) // ours, and not whole
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
