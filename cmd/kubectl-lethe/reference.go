package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newReference prints docs/reference/cli.md. `make reference` keeps it.
func newReference(s *shell) *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference of all commands as Markdown", Hidden: true, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.data([]byte(reference(cmd.Root()))) },
	}
}

// reference describes each command with its own flags. Those that all of them have, which are kubectl's, stand once.
func reference(root *cobra.Command) string {
	var out strings.Builder
	out.WriteString("# Command reference\n\nMade by `make reference` out of the program; do not edit it. `kubectl lethe COMMAND --help` says the same.\n\n" +
		"Objects of a namespace are named `NAMESPACE/NAME`, or by their name together with `-n`. `-f` takes files, folders (with `-R` those below them, too), URLs and `-` for standard\n" +
		"input, `-k` a kustomization. `-o` is for programs: what it prints is no object of the cluster, but of `" + viewVersion + "`. No error repeats a value that it was given.\n")
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, child := range cmd.Commands() {
			if !child.IsAvailableCommand() || child.Name() == "help" || child.Name() == "completion" {
				continue
			}
			if !child.HasSubCommands() {
				describeCommand(&out, child)
			}
			visit(child)
		}
	}
	visit(root)
	out.WriteString("\n## Flags of all commands\nThose with which kubectl finds a cluster.\n\n")
	flagTable(&out, root.PersistentFlags())
	out.WriteString("\n## Completion\n`kubectl lethe completion bash|zsh|fish|powershell` prints what a shell needs for `kubectl-lethe` itself. For `kubectl lethe`, kubectl asks a program\n" +
		"`kubectl_complete-lethe` in `PATH`: `make build` puts it into `bin/`. It offers names of tenants, bots, stores, policies, credentials and datasets that you may read.\n")
	return out.String()
}

func describeCommand(out *strings.Builder, cmd *cobra.Command) {
	use := strings.Replace(cmd.UseLine(), "kubectl-lethe", "kubectl lethe", 1)
	fmt.Fprintf(out, "\n## %s\n%s.\n\n```text\n%s\n```\n", strings.Replace(cmd.CommandPath(), "kubectl-lethe", "kubectl lethe", 1), cmd.Short, strings.TrimSuffix(use, " [flags]"))
	if cmd.Long != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Example != "" {
		fmt.Fprintf(out, "\n```sh\n%s\n```\n", unindent(cmd.Example))
	}
	if flags := cmd.LocalFlags(); flags.HasAvailableFlags() {
		out.WriteString("\n")
		flagTable(out, flags)
	}
}

func unindent(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

func flagTable(out *strings.Builder, flags *pflag.FlagSet) {
	out.WriteString("| flag | |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		usage := f.Usage
		if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" && d != "0s" && !strings.Contains(d, "/") {
			usage += " (default `" + d + "`)"
		}
		fmt.Fprintf(out, "| %s | %s |\n", name, strings.ReplaceAll(strings.Join(strings.Fields(usage), " "), "|", `\|`))
	})
}
