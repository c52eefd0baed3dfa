// Package version says which Lethe this is.
package version

import "runtime/debug"

// version is set by -ldflags "-X github.com/lethe-dev/lethe/internal/version.version=v0.1.0".
var version string

// String is the version that the build was given; otherwise that of the module, or "devel".
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
