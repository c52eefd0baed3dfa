// Command golangci-lint is golangci-lint with kube-api-linter built in. golangci-lint's own "custom" command clones
// repositories to do the same; this needs nothing but the Go module proxy.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/golangci/golangci-lint/v2/pkg/commands"
	"github.com/golangci/golangci-lint/v2/pkg/exitcodes"
	_ "sigs.k8s.io/kube-api-linter" // registers the linter kubeapilinter
)

func main() {
	info := commands.BuildInfo{GoVersion: runtime.Version(), Version: version(), Commit: "none", Date: "none"}
	if err := commands.Execute(info); err != nil {
		os.Exit(exitcodes.Failure)
	}
}

// version of golangci-lint that is built in; the configuration is checked against it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/golangci/golangci-lint/v2" {
			return strings.TrimPrefix(dep.Version, "v")
		}
	}
	return "unknown"
}
