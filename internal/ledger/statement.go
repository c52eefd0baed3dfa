package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// statementHeader is the first line of every statement about a report.
const statementHeader = "lethe report v1"

// NoStatement is what the first statement about a store names in the place of the one before it.
const NoStatement = "0000000000000000000000000000000000000000000000000000000000000000"

// Statement is what the keyserver says, and signs, of a report that it took: which sweep of which store it came from,
// and its place among the reports of that store. It has one form as a text, and names the statement before it, so
// that statements make a chain.
type Statement struct {
	Namespace string    `json:"namespace"` // of the DataStore
	Name      string    `json:"name"`
	Store     string    `json:"store"` // UIDs
	Job       string    `json:"job"`
	Pod       string    `json:"pod"`
	Plan      string    `json:"plan"`     // hash of the plan that the pod was started with
	Sequence  int64     `json:"sequence"` // 1 for a store's first report
	Time      time.Time `json:"time"`     // whole seconds
	Report    string    `json:"report"`   // SHA-256 of the report's canonical bytes, in hex
	Previous  string    `json:"previous"` // Digest of the statement before it
}

var (
	statementName   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	statementUID    = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	statementDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// What is wrong with a statement.
var (
	ErrNoStatement = errors.New("it is no statement about a report")
	ErrNotSigned   = errors.New("the statement about the report is not as the keyserver signed it")
	ErrChain       = errors.New("the statement does not follow the one before it")
)

// Text is the canonical form, which is signed.
func (s Statement) Text() (string, error) {
	for _, f := range []struct {
		form  *regexp.Regexp
		value string
	}{{statementName, s.Namespace}, {statementName, s.Name}, {statementUID, s.Store}, {statementUID, s.Job}, {statementUID, s.Pod},
		{statementDigest, s.Plan}, {statementDigest, s.Report}, {statementDigest, s.Previous}} {
		if !f.form.MatchString(f.value) {
			return "", ErrNoStatement
		}
	}
	if s.Sequence < 1 || s.Time.Year() < 1970 || s.Time.Year() > 9999 {
		return "", ErrNoStatement
	}
	return fmt.Sprintf("%s\nstore %s/%s %s\njob %s\npod %s\nplan %s\nsequence %d\ntime %s\nreport %s\nprevious %s\n", statementHeader, s.Namespace, s.Name, s.Store,
		s.Job, s.Pod, s.Plan, s.Sequence, s.Time.UTC().Format(time.RFC3339), s.Report, s.Previous), nil
}

// ParseStatement reads the canonical form, and no other.
func ParseStatement(text string) (Statement, error) {
	var s Statement
	lines := strings.Split(text, "\n")
	if len(lines) != 10 || lines[0] != statementHeader {
		return s, ErrNoStatement
	}
	values := make([]string, 0, 8)
	for i, name := range []string{"store", "job", "pod", "plan", "sequence", "time", "report", "previous"} {
		value, ok := strings.CutPrefix(lines[i+1], name+" ")
		if !ok {
			return s, ErrNoStatement
		}
		values = append(values, value)
	}
	var where string
	where, s.Store, _ = strings.Cut(values[0], " ")
	s.Namespace, s.Name, _ = strings.Cut(where, "/")
	s.Job, s.Pod, s.Plan, s.Report, s.Previous = values[1], values[2], values[3], values[6], values[7]
	var err error
	if s.Sequence, err = strconv.ParseInt(values[4], 10, 64); err != nil {
		return Statement{}, ErrNoStatement
	}
	if s.Time, err = time.Parse(time.RFC3339, values[5]); err != nil {
		return Statement{}, ErrNoStatement
	}
	if again, err := s.Text(); err != nil || again != text {
		return Statement{}, ErrNoStatement
	}
	return s, nil
}

// Digest names a statement: the SHA-256 of its canonical form, in hex. Signatures are no part of it.
func (s Statement) Digest() (string, error) {
	text, err := s.Text()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), nil
}

// Follows says whether a statement is the next one about the same store: ErrChain where it is not.
func (s Statement) Follows(before Statement) error {
	digest, err := before.Digest()
	if err != nil {
		return err
	}
	if s.Store != before.Store || s.Sequence != before.Sequence+1 || s.Previous != digest || s.Time.Before(before.Time) {
		return ErrChain
	}
	return nil
}

// ReportKey signs statements: Ed25519, in the format of signed notes (golang.org/x/mod/sumdb/note), which others than
// Lethe can check.
type ReportKey struct {
	signer note.Signer
	public string
}

// reportKeyName is the name under which an installation signs.
func reportKeyName(realm string) string { return "lethe-reports/" + realm }

// ReportSeedSize is the length of what a ReportKey is made of.
const ReportSeedSize = ed25519.SeedSize

// NewReportKey makes the key of an installation out of its seed.
func NewReportKey(realm string, seed []byte) (ReportKey, error) {
	if len(seed) != ed25519.SeedSize {
		return ReportKey{}, fmt.Errorf("a seed of %d bytes: it has %d", len(seed), ed25519.SeedSize)
	}
	name, private := reportKeyName(realm), ed25519.NewKeyFromSeed(seed)
	public, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // as its documentation says
	if err != nil {
		return ReportKey{}, errors.New("the public key of reports has no text")
	}
	hash, _, _ := strings.Cut(strings.TrimPrefix(public, name+"+"), "+")
	signer, err := note.NewSigner("PRIVATE+KEY+" + name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed...))) // 1 is Ed25519
	if err != nil {
		return ReportKey{}, errors.New("the realm cannot be a part of the name of a key")
	}
	return ReportKey{signer: signer, public: public}, nil
}

// Public is the verifier key as a text: name, hash and key, in the format of signed notes.
func (k ReportKey) Public() string { return k.public }

// String hides the key from %v and %s.
func (k ReportKey) String() string { return "<key " + k.public + ">" }

// GoString hides the key from %#v.
func (k ReportKey) GoString() string { return k.String() }

// Sign makes a signed note of a statement. The same statement gives the same bytes.
func (k ReportKey) Sign(s Statement) (string, error) {
	text, err := s.Text()
	if err != nil {
		return "", err
	}
	signed, err := note.Sign(&note.Note{Text: text}, k.signer)
	if err != nil {
		return "", errors.New("sign the statement about a report")
	}
	return string(signed), nil
}

// OpenStatement reads a signed note that must have the signature of a verifier key. Further signatures count for
// nothing.
func OpenStatement(signed, public string) (Statement, error) {
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return Statement{}, errors.New("the public key of reports cannot be read")
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return Statement{}, ErrNotSigned
	}
	return ParseStatement(opened.Text)
}

// ReadStatement reads a signed note without looking at its signatures, for whoever has it from the keyserver itself.
func ReadStatement(signed string) (Statement, error) {
	text, signatures, ok := strings.Cut(signed, "\n\n")
	if !ok || signatures == "" {
		return Statement{}, ErrNoStatement
	}
	return ParseStatement(text + "\n")
}
