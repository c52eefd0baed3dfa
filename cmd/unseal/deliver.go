package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lethe-dev/lethe/internal/protocol"
)

// fileMode lets the bot's user read and nobody write: the pod's containers run as one user and group.
const fileMode = 0o440

// deliver writes every credential, or fails before the first one that cannot be delivered is written.
func deliver(o options, bundle protocol.SecretBundle) error {
	env, err := envFile(bundle.Items)
	if err != nil {
		return err
	}
	defer clear(env)
	if len(env) > 0 && o.envFile == "" {
		return errors.New("a credential is delivered as a variable, but there is no --env-file")
	}
	for _, item := range bundle.Items {
		if item.EnvName == "" && !isFileName(item.Name) {
			return fmt.Errorf("credential %q cannot be the name of a file", item.Name)
		}
	}
	for _, item := range bundle.Items {
		if item.EnvName != "" {
			continue
		}
		if err := writeFile(filepath.Join(o.dir, item.Name), item.Value); err != nil {
			return fmt.Errorf("write credential %s: %w", item.Name, err)
		}
		clear(item.Value)
	}
	if o.envFile == "" {
		return nil
	}
	if err := writeFile(o.envFile, env); err != nil {
		return fmt.Errorf("write the file of variables: %w", err)
	}
	return nil
}

func isFileName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// envFile is what the kubelet reads for fileKeyRef: a line NAME='value' each. Inside the quotes nothing is special and
// nothing can be escaped, so a value with a quote cannot be said; line ends are refused too, since the kubelet would
// change them (it drops a carriage return) and a variable with one is a mistake more often than not.
func envFile(items []protocol.SecretItem) ([]byte, error) {
	var b bytes.Buffer
	for _, item := range items {
		if item.EnvName == "" {
			continue
		}
		if bytes.ContainsAny(item.Value, "'\n\r\x00") {
			return nil, fmt.Errorf("credential %s holds a quote, a line break or a zero byte and cannot be a variable: use delivery File", item.Name)
		}
		if !isVariable(item.EnvName) {
			return nil, fmt.Errorf("credential %s: %q is no name of a variable", item.Name, item.EnvName)
		}
		b.WriteString(item.EnvName + "='")
		b.Write(item.Value)
		b.WriteString("'\n")
	}
	return b.Bytes(), nil
}

func isVariable(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// writeFile puts a file in place whole: a reader sees the old one or the new one. The bot may be looking while a
// restarted init container writes again.
func writeFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".unseal-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(fileMode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
