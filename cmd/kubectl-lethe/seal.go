package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/near"
	"github.com/lethe-dev/lethe/internal/sealing"
)

// sealOptions are the flags of seal.
type sealOptions struct {
	bot, store, credential string
	files                  *genericclioptions.FileNameFlags
	output                 string
	keyFile                string
	newCredential          bool
	fromFile               string
	exact                  bool
	version                uint32

	host, database, username, caFile string
	port                             int32
}

func newSeal(s *shell) *cobra.Command {
	o := &sealOptions{}
	cmd := &cobra.Command{
		Use:   "seal (--bot [NAMESPACE/]NAME --credential NAME | --store [NAMESPACE/]NAME | -f FILE)",
		Short: "Seal a credential for one bot or one data store",
		Long: `Seal a value to a tenant's public key, for one place only: this tenant, namespace, object, credential and version, and for
a DataStore also its host, port, database, username and CA. The sealed value may be committed; it opens nowhere else.

The value is read from standard input or --from-file, never from an argument. One line break at its end is left out.
The sealed value alone goes to standard output; with -f and -o yaml it is the manifest with the sealed value in it.

A value that is sealed again must have a higher --version than the one before: the keyserver never goes back.`,
		Example: `  # a bot's token, typed without being shown
  kubectl lethe seal --bot acme-bots/support --credential telegram-token

  # put it into the manifest
  kubectl lethe seal -f bot.yaml --credential telegram-token -o yaml < token.txt > bot-sealed.yaml

  # a database's password; the destination is read from the manifest
  kubectl lethe seal -f datastore.yaml < password.txt

  # without a cluster
  kubectl lethe seal --key-file tenant-key.yaml --bot acme-bots/support --credential telegram-token < token.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errors.New("seal takes no argument (not repeated here): the value comes from standard input or --from-file, since arguments stand in the shell's history and in the list of processes; if it was a secret, change it")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.seal(cmd.Context(), o, cmd.Flags().Changed("version"))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.bot, "bot", "", "BotDeployment to seal for, as namespace/name")
	f.StringVar(&o.store, "store", "", "DataStore to seal the password of, as namespace/name")
	f.StringVar(&o.credential, "credential", "", "name of the entry of the bot's spec.credentials")
	f.Uint32Var(&o.version, "version", 1, "version of the value; one that is sealed again needs a higher one than before")
	o.files = addFiles(cmd, "manifest of the bot or store: it names the place and a store's destination")
	f.BoolVar(&o.newCredential, "new-credential", false, "the bot is to have a credential of this name, although it has one that is spelt nearly the same")
	f.StringVarP(&o.output, "output", "o", "value", "value (the sealed value alone) or yaml (the manifest of -f with the value in it)")
	for flag, complete := range map[string]cobra.CompletionFunc{"bot": s.completeBots, "store": s.completeStores, "credential": s.completeCredentials,
		"output": cobra.FixedCompletions([]string{"value", "yaml"}, cobra.ShellCompDirectiveNoFileComp)} {
		_ = cmd.RegisterFlagCompletionFunc(flag, complete) // they were just added
	}
	f.StringVar(&o.keyFile, "key-file", "", "tenant's public key from `kubectl lethe keys public`, to seal without a cluster")
	f.StringVar(&o.fromFile, "from-file", "", "file that holds the value; left out, it is read from standard input")
	f.BoolVar(&o.exact, "exact", false, "keep a line break at the end of the value")
	f.StringVar(&o.host, "host", "", "destination of a store that has no manifest: host")
	f.Int32Var(&o.port, "port", v1alpha1.DefaultPostgresPort, "destination: port")
	f.StringVar(&o.database, "database", "", "destination: database")
	f.StringVar(&o.username, "username", "", "destination: role that sweeps log in as")
	f.StringVar(&o.caFile, "ca-file", "", "destination: file with the PEM certificates of the store's spec.postgres.caBundle")
	return cmd
}

func (s *shell) seal(ctx context.Context, o *sealOptions, versionGiven bool) error {
	if o.output != "value" && o.output != "yaml" {
		return errors.New("-o: say value or yaml")
	}
	if o.output == "yaml" && !oneText(o.files) {
		return errors.New("-o yaml needs one -f, a file or - for standard input: the value is put into it, and the rest of it, comments too, stays as it is")
	}
	if fromStdin(o.files) && o.fromFile == "" {
		return errors.New("-f - takes the manifest from standard input: give the value with --from-file")
	}
	t, err := s.sealTarget(o)
	if err != nil {
		return err
	}
	var c client.Client // nil without a cluster
	var key tenantKey
	if o.keyFile != "" {
		key, err = readKeyFile(o.keyFile)
	} else if c, err = s.client(); err == nil {
		key, err = s.keyOfNamespace(ctx, c, t.place.Namespace)
	}
	if err != nil {
		return err
	}
	if c != nil {
		if err := s.lookAtPresent(ctx, c, t, o); err != nil {
			return err
		}
	}
	if err := t.setVersion(o.version, versionGiven); err != nil {
		return err
	}
	if t.place.Kind == sealing.KindDataStore && t.place.Destination.Host == "" {
		return fmt.Errorf("the destination of DataStore %s/%s is not known: give its manifest with -f, or --host, --port, --database, --username and --ca-file",
			t.place.Namespace, t.place.Name)
	}
	t.place.Realm, t.place.Tenant = key.realm, key.tenant
	s.note("Sealing %s", describePlace(t.place))
	s.note("to key %s of Tenant %s, realm %s", key.fingerprint(), key.tenant, key.realm)

	value, err := s.readValue(o.fromFile, o.exact)
	if err != nil {
		return err
	}
	defer clear(value)
	sealed, err := sealing.Seal(key.public, t.place, value)
	if err != nil {
		return err
	}
	return s.writeSealed(o, t, sealed)
}

// target is what a value is sealed for, and where the sealed value goes.
type target struct {
	place   sealing.Place
	docs    []document // of -f
	doc     document
	present sealing.Hint // of the value that is there already; Version 0 for none
	where   string       // where that one is
}

func (s *shell) sealTarget(o *sealOptions) (*target, error) {
	t := &target{}
	var err error
	switch {
	case o.bot != "" && o.store != "":
		return nil, errors.New("--bot and --store cannot both be given")
	case o.bot == "" && o.store == "" && !given(o.files):
		return nil, errors.New("say what to seal for: --bot with --credential, --store, or -f")
	case o.store != "" && o.credential != "":
		return nil, errors.New("--credential is for --bot: a DataStore has one credential, its password")
	}
	kind := sealing.KindBotDeployment
	if o.store != "" || (o.bot == "" && o.credential == "") {
		kind = sealing.KindDataStore
	}
	flag, text := "--bot", o.bot
	if kind == sealing.KindDataStore {
		flag, text = "--store", o.store
	}
	var name types.NamespacedName
	if text != "" {
		if name, err = s.reference(flag, text); err != nil {
			return nil, err
		}
	}
	if given(o.files) {
		if name, err = s.fromManifest(o, t, kind, name); err != nil {
			return nil, err
		}
	}
	t.place.Kind, t.place.Namespace, t.place.Name, t.place.Key = kind, name.Namespace, name.Name, sealing.PasswordKey
	if kind == sealing.KindDataStore {
		return t, o.destination(t)
	}
	if o.credential == "" {
		return nil, errors.New("--credential is needed: the name of the entry of spec.credentials that the value is for")
	}
	if o.host != "" || o.database != "" || o.username != "" || o.caFile != "" {
		return nil, errors.New("--host, --database, --username and --ca-file are for --store: a bot's credential has no destination")
	}
	if !credentialName.MatchString(o.credential) {
		return nil, errors.New("--credential: a name has 1 to 63 of a-z, 0-9, minus, dot and underscore (it is not repeated here)")
	}
	t.place.Key = o.credential
	return t, nil
}

// credentialName is what the API takes as the name of a credential.
var credentialName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_.]{0,61}[a-z0-9])?$`)

// fromManifest finds the object in the manifest, and what is sealed in it already.
func (s *shell) fromManifest(o *sealOptions, t *target, kind string, name types.NamespacedName) (types.NamespacedName, error) {
	var err error
	if oneText(o.files) {
		t.docs, err = s.readManifest("-f", (*o.files.Filenames)[0])
	} else {
		t.docs, err = s.readObjects(o.files)
	}
	if err != nil {
		return name, err
	}
	if t.doc, err = pick(t.docs, "-f", kind, name.Namespace, name.Name); err != nil {
		return name, err
	}
	if name.Namespace == "" {
		if name.Namespace = t.doc.namespace; name.Namespace == "" {
			if name.Namespace, err = s.namespace(); err != nil {
				return name, err
			}
		}
	}
	name.Name = t.doc.name
	if kind == sealing.KindBotDeployment {
		var bot v1alpha1.BotDeployment
		if err := t.doc.decode(&bot); err != nil {
			return name, fmt.Errorf("-f: %w", err)
		}
		t.remember("the manifest", sealedIn(&bot, o.credential))
		return name, s.known(&bot, o.credential, o.newCredential)
	}
	var store v1alpha1.DataStore
	if err := t.doc.decode(&store); err != nil {
		return name, fmt.Errorf("-f: %w", err)
	}
	if store.Spec.Postgres == nil {
		return name, fmt.Errorf("-f: DataStore %s has no spec.postgres", name.Name)
	}
	if o.host != "" || o.database != "" || o.username != "" || o.caFile != "" {
		return name, errors.New("-f names the destination; leave --host, --database, --username and --ca-file out")
	}
	t.place.Destination = sealing.DestinationOf(&store.Spec)
	t.remember("the manifest", store.Spec.Postgres.Password)
	return name, nil
}

// destination takes a store's destination from flags, when there is no manifest.
func (o *sealOptions) destination(t *target) error {
	if given(o.files) || (o.host == "" && o.database == "" && o.username == "" && o.caFile == "") {
		return nil
	}
	if o.host == "" || o.database == "" || o.username == "" {
		return errors.New("--host, --database and --username are needed together: all of them are bound into the sealed value")
	}
	spec := v1alpha1.DataStoreSpec{Type: v1alpha1.StorePostgres, Postgres: &v1alpha1.PostgresStore{
		Host: o.host, Port: o.port, Database: o.database, Username: o.username}}
	if o.caFile != "" {
		b, err := readFile("--ca-file", o.caFile)
		if err != nil {
			return err
		}
		spec.Postgres.CABundle = string(b)
	}
	t.place.Destination = sealing.DestinationOf(&spec)
	return nil
}

// lookAtPresent reads the object, when it exists and the caller may, for the version that is in use and for a store's
// destination where nothing else names it.
func (s *shell) lookAtPresent(ctx context.Context, c client.Client, t *target, o *sealOptions) error {
	name := client.ObjectKey{Namespace: t.place.Namespace, Name: t.place.Name}
	var bot v1alpha1.BotDeployment
	var store v1alpha1.DataStore
	var err error
	if t.place.Kind == sealing.KindBotDeployment {
		err = c.Get(ctx, name, &bot)
	} else {
		err = c.Get(ctx, name, &store)
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err):
		s.note("note: you may not read %s %s, so whether it has a value already is not known; give --version a higher number than before", t.place.Kind, name)
		return nil
	case err != nil:
		return fmt.Errorf("read %s %s: %w", t.place.Kind, name, err)
	case t.place.Kind == sealing.KindBotDeployment:
		t.remember("the cluster", sealedIn(&bot, t.place.Key))
		if !given(o.files) {
			return s.known(&bot, t.place.Key, o.newCredential)
		}
	case store.Spec.Postgres != nil:
		t.remember("the cluster", store.Spec.Postgres.Password)
		if t.place.Destination.Host == "" {
			t.place.Destination = sealing.DestinationOf(&store.Spec)
		}
	}
	return nil
}

// remember notes a value that is there already, if it is the newest one seen.
func (t *target) remember(where string, sealed v1alpha1.SealedValue) {
	e, err := sealing.Parse(string(sealed))
	if err != nil || e.Hint.Version <= t.present.Version {
		return
	}
	t.present, t.where = e.Hint, where
}

// oneText says whether -f is one text, which can be written again with its comments.
func oneText(f *genericclioptions.FileNameFlags) bool {
	if len(*f.Filenames) != 1 || *f.Kustomize != "" {
		return false
	}
	name := (*f.Filenames)[0]
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return false
	}
	info, err := os.Stat(name)
	return name == "-" || err != nil || !info.IsDir() // a file that is not there is said when it is read
}

// known finds a credential's name that the bot does not have. One that is nearly the name of another is refused: a
// value sealed for a name that was misspelt opens for nobody.
func (s *shell) known(bot *v1alpha1.BotDeployment, credential string, meant bool) error {
	var has []string
	for _, c := range bot.Spec.Credentials {
		has = append(has, c.Name)
	}
	for _, c := range bot.Spec.Channels {
		if c.Telegram != nil && !slices.Contains(has, c.Telegram.Credential) {
			has = append(has, c.Telegram.Credential)
		}
	}
	if len(has) == 0 || slices.Contains(has, credential) || meant {
		return nil
	}
	if meantName := near.Nearest(credential, has); meantName != "" {
		return fmt.Errorf("--credential: BotDeployment %s has no credential %s, but one that is called %s: is that the one? A value sealed for another name opens for nobody; --new-credential says that it is a new one",
			bot.Name, credential, meantName)
	}
	s.note("note: BotDeployment %s has no credential %s yet (it has %s): the value is for an entry of spec.credentials with that name", bot.Name, credential, strings.Join(has, ", "))
	return nil
}

func sealedIn(bot *v1alpha1.BotDeployment, credential string) v1alpha1.SealedValue {
	for _, c := range bot.Spec.Credentials {
		if c.Name == credential {
			return c.Sealed
		}
	}
	return ""
}

// setVersion asks for a higher version where there is a value already.
func (t *target) setVersion(version uint32, given bool) error {
	if p := t.present.Version; version <= p {
		what := "a value sealed again"
		if given {
			what = fmt.Sprintf("--version %d", version)
		}
		return fmt.Errorf("%s would not be taken: there is one of version %d in %s; say --version %d", what, p, t.where, p+1)
	}
	t.place.Version = version
	return nil
}

func describePlace(p sealing.Place) string {
	if p.Kind == sealing.KindBotDeployment {
		return fmt.Sprintf("credential %s, version %d, for BotDeployment %s/%s", p.Key, p.Version, p.Namespace, p.Name)
	}
	d := p.Destination
	ca := "the system's certificate authorities"
	if d.CASHA256 != "" {
		ca = "its caBundle (SHA256:" + d.CASHA256[:16] + "…)"
	}
	return fmt.Sprintf("the password, version %d, for DataStore %s/%s: role %s, database %s at %s:%d, verified with %s",
		p.Version, p.Namespace, p.Name, d.Username, d.Database, d.Host, d.Port, ca)
}

// readValue reads what is to be sealed. A line break at the end is an editor's or echo's, and no part of a token.
func (s *shell) readValue(fromFile string, exact bool) ([]byte, error) {
	var value []byte
	var err error
	switch {
	case fromFile != "":
		value, err = readFile("--from-file", fromFile)
	case s.terminal():
		s.prompt("Value (not shown): ")
		value, err = s.hidden()
		s.note("")
	default:
		value, err = io.ReadAll(io.LimitReader(s.In, sealing.MaxPlaintext+3))
	}
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if !exact {
		value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	}
	if len(value) == 0 {
		return nil, errors.New("the value is empty: give it on standard input or with --from-file")
	}
	return value, nil
}

func (s *shell) writeSealed(o *sealOptions, t *target, sealed string) error {
	if o.output == "value" {
		return s.data([]byte(sealed + "\n"))
	}
	var err error
	if t.place.Kind == sealing.KindBotDeployment {
		err = setCredential(t.doc, t.place.Key, sealed)
	} else {
		err = setPassword(t.doc, sealed)
	}
	if err != nil {
		return err
	}
	var manifest bytes.Buffer
	if err := writeManifest(&manifest, t.docs); err != nil {
		return err
	}
	return s.data(manifest.Bytes())
}
