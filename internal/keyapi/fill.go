package keyapi

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A file of a bot names its credentials as ${credential:NAME}. A dollar sign in front of it takes that meaning away:
// $${credential: is ${credential: as it stands.
const (
	fillOpen  = "${credential:"
	fillClose = "}"
)

// fillName is what a credential can be called; nothing else out of a file is ever shown.
var fillName = regexp.MustCompile(`^[a-z0-9][-a-z0-9_.]{0,62}$`)

// MaxFilled is what the filled in files of a pod may come to, in bytes.
const MaxFilled = 1 << 20

// ErrFilledTooLarge says that a file comes to more than it may.
var ErrFilledTooLarge = errors.New("the files come to more than 1048576 bytes with their credentials filled in")

// Fill puts credentials into the content of a file. What it returns is at most room bytes long.
func Fill(content string, room int, value func(name string) ([]byte, bool)) ([]byte, error) {
	var out bytes.Buffer
	err := fill(content, func(text string) error {
		out.WriteString(text)
		return within(&out, room)
	}, func(name string) error {
		v, ok := value(name)
		if !ok {
			return fmt.Errorf("it names credential %s, which the bot does not have", name)
		}
		out.Write(v)
		return within(&out, room)
	})
	if err != nil {
		clear(out.Bytes())
		return nil, err
	}
	return out.Bytes(), nil
}

func within(b *bytes.Buffer, room int) error {
	if b.Len() > room {
		return ErrFilledTooLarge
	}
	return nil
}

// Named are the credentials that the content of a file names, each once.
func Named(content string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	err := fill(content, func(string) error { return nil }, func(name string) error {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// Unescape is the content of a file that names no credential, as a bot without credentials gets it.
func Unescape(content string) string { return strings.ReplaceAll(content, "$"+fillOpen, fillOpen) }

// fill goes through a content: texts as they are, and names of credentials.
func fill(content string, text, name func(string) error) error {
	for rest := content; rest != ""; {
		at := strings.Index(rest, fillOpen)
		if at < 0 {
			return text(rest)
		}
		before, after := rest[:at], rest[at+len(fillOpen):]
		if strings.HasSuffix(before, "$") {
			if err := text(before[:len(before)-1] + fillOpen); err != nil {
				return err
			}
			rest = after
			continue
		}
		if err := text(before); err != nil {
			return err
		}
		named, more, closed := strings.Cut(after, fillClose)
		if !closed || !fillName.MatchString(named) {
			return fmt.Errorf("%s must be followed by the name of a credential and by %s; to have it as it stands, write $%s", fillOpen, fillClose, fillOpen)
		}
		if err := name(named); err != nil {
			return err
		}
		rest = more
	}
	return nil
}

// MaxVariable is the longest value that an environment variable can have, in bytes.
const MaxVariable = 32 << 10

// CanBeVariable says whether a credential can be delivered as an environment variable. The kubelet reads them out of
// a file of lines NAME='value': inside the quotes nothing is special and nothing can be escaped, so a value with a
// quote cannot be said; line ends are refused too, since the kubelet would change them (it drops a carriage return)
// and a variable with one is a mistake more often than not.
func CanBeVariable(value []byte) bool {
	return len(value) <= MaxVariable && !bytes.ContainsAny(value, "'\n\r\x00")
}
