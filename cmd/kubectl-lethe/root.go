package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/version"
)

// shell is what a command gets from outside. Tests put their own in.
type shell struct {
	genericiooptions.IOStreams
	config   *genericclioptions.ConfigFlags
	now      func() time.Time
	random   io.Reader
	terminal func() bool            // whether In is a terminal
	hidden   func() ([]byte, error) // reads a line from the terminal without showing it
	// outTerminal says whether Out is a terminal; nil where it never is.
	outTerminal func() bool
}

func newRoot(s *shell) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-lethe",
		Short: "Seal credentials, look after bots, and see, approve and verify what retention does",
		Long: `Seal credentials for one place, say what is wrong with tenants, bots and stores and what to do, read logs, restart a bot, say
what will happen to a store's data, approve a plan, print the grants that sweeps need, verify that promises hold, and look after keys.`,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl lethe"},
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              knownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	s.streams(root)
	root.SetFlagErrorFunc(flagError)
	s.config.AddFlags(root.PersistentFlags())
	root.AddCommand(newSeal(s), newStatus(s), newLogs(s), newRestart(s), newExplain(s), newPlan(s), newApprove(s), newGrants(s), newVerify(s), newKeys(s), newVersion(s), newReference(s))
	s.completeNamespaces(root)
	return root
}

func newVersion(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return s.say("%s\n", version.String())
		},
	}
}

// knownCommand refuses a command that does not exist, without repeating it.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("no such command; `%s` has %s", cmd.CommandPath(), strings.Join(names, ", "))
}

// group holds commands and does nothing itself.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: knownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

// noArguments refuses arguments without repeating them: one of them may be a secret.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("`%s` takes no argument, and got %d (not repeated here); see `%s --help`", cmd.CommandPath(), len(args), cmd.CommandPath())
}

// atMostOne refuses more than one argument.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= 1 {
			return nil
		}
		return fmt.Errorf("`%s` takes at most one argument, %s, and got %d; see `%s --help`", cmd.CommandPath(), what, len(args), cmd.CommandPath())
	}
}

// oneArgument refuses anything but one argument.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return fmt.Errorf("`%s` takes one argument, %s, and got %d; see `%s --help`", cmd.CommandPath(), what, len(args), cmd.CommandPath())
	}
}

// flagError says which flag is wrong and leaves the value out: it may be a secret that was put in the wrong place.
func flagError(cmd *cobra.Command, err error) error {
	help := fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	var invalid *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		return fmt.Errorf("--%s: not a valid %s (the value is not repeated here); %s", f.Name, f.Value.Type(), help)
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" && isFlagName(unknown.GetSpecifiedName()):
		return fmt.Errorf("there is no flag --%s; %s", unknown.GetSpecifiedName(), help)
	case errors.As(err, &unknown):
		return fmt.Errorf("an unknown flag (not repeated here); %s", help)
	case errors.As(err, &missing):
		return fmt.Errorf("--%s needs a value; %s", missing.GetFlag().Name, help)
	case errors.As(err, &syntax):
		return fmt.Errorf("a flag that cannot be read (not repeated here); %s", help)
	default:
		return fmt.Errorf("the flags cannot be read; %s", help)
	}
}

// isFlagName says whether a name is short and plain enough to be a flag that was misspelt, and no secret.
var flagName = regexp.MustCompile(`^[a-z]+(-[a-z]+){0,3}$`)

func isFlagName(name string) bool { return len(name) <= 24 && flagName.MatchString(name) }

// client talks to the cluster with the caller's own rights.
func (s *shell) client() (client.Client, error) {
	config, err := s.config.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "kubectl-lethe/" + version.String()
	config.WarningHandler = rest.NewWarningWriter(s.errors(), rest.WarningWriterOptions{Deduplicate: true})
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register Kubernetes' kinds: %w", err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register Lethe's kinds: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return c, nil
}

// namespace is that of -n, else the kubeconfig's.
func (s *shell) namespace() (string, error) {
	ns, _, err := s.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	return ns, nil
}

var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// reference reads namespace/name, or a name in the namespace of -n. flag is what to blame.
func (s *shell) reference(flag, text string) (types.NamespacedName, error) {
	parts := strings.Split(text, "/")
	for _, p := range parts {
		if !objectName.MatchString(p) {
			return types.NamespacedName{}, fmt.Errorf("%s: say namespace/name, or a name together with -n", flag)
		}
	}
	switch len(parts) {
	case 1:
		ns, err := s.namespace()
		return types.NamespacedName{Namespace: ns, Name: parts[0]}, err
	case 2:
		return types.NamespacedName{Namespace: parts[0], Name: parts[1]}, nil
	default:
		return types.NamespacedName{}, fmt.Errorf("%s: say namespace/name, or a name together with -n", flag)
	}
}
