package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lethe-dev/lethe/internal/keyapi"
)

// fileMode lets the bot's user read and nobody write: the pod's containers run as one user and group.
const fileMode = 0o440

// deliver writes every credential, or fails before the first one that cannot be delivered is written.
func deliver(o options, bundle keyapi.SecretBundle) error {
	env, err := envFile(bundle.Items)
	if err != nil {
		return err
	}
	defer clear(env)
	if len(env) > 0 && o.envFile == "" {
		return errors.New("a credential is delivered as a variable, but there is no --env-file")
	}
	files, err := fillFiles(o, bundle.Items)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			clear(f.content)
		}
	}()
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
	for _, f := range files {
		if err := writeFile(filepath.Join(o.files, f.name), f.content); err != nil {
			return fmt.Errorf("write file %s: %w", f.name, err)
		}
	}
	if o.envFile == "" {
		return nil
	}
	if err := writeFile(o.envFile, env); err != nil {
		return fmt.Errorf("write the file of variables: %w", err)
	}
	return nil
}

// filled is a file of the bot with its credentials in it.
type filled struct {
	name    string
	content []byte
}

// fillFiles puts the credentials into the bot's files. Each has a number for a name; what begins with two dots is the
// kubelet's own.
func fillFiles(o options, items []keyapi.SecretItem) ([]filled, error) {
	if o.templates == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(o.templates)
	if err != nil {
		return nil, fmt.Errorf("read the bot's files: %w", err)
	}
	values := map[string][]byte{}
	for _, item := range items {
		values[item.Name] = item.Value
	}
	var files []filled
	room := keyapi.MaxFilled
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		template, err := os.ReadFile(filepath.Join(o.templates, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read a file of the bot: %w", err)
		}
		content, err := keyapi.Fill(string(template), room, func(name string) ([]byte, bool) { v, ok := values[name]; return v, ok })
		if err != nil {
			return nil, fmt.Errorf("file %s of spec.files: %w", entry.Name(), err)
		}
		room -= len(content)
		files = append(files, filled{entry.Name(), content})
	}
	return files, nil
}

func isFileName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// envFile is what the kubelet reads for fileKeyRef: a line NAME='value' each. The keyserver has refused what cannot
// be said in one.
func envFile(items []keyapi.SecretItem) ([]byte, error) {
	var b bytes.Buffer
	for _, item := range items {
		if item.EnvName == "" {
			continue
		}
		if !keyapi.CanBeVariable(item.Value) {
			return nil, fmt.Errorf("credential %s holds a quote, a line break or a zero byte, or is too long, and cannot be a variable: use delivery File", item.Name)
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
