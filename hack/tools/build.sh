#!/usr/bin/env bash
# Builds the tools that the Makefile uses, each from a module of its own beside this script, into a per-user cache that
# is keyed by version. Prints the path of each binary on stdout and progress on stderr.
#
#   hack/tools/build.sh TOOL...     controller-gen, kustomize, helm, crane, golangci-lint, govulncheck
#
# LETHE_CACHE changes the cache's folder (default: $XDG_CACHE_HOME/lethe or ~/.cache/lethe).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${LETHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lethe}

package_of() {
  case $1 in
    controller-gen) echo sigs.k8s.io/controller-tools/cmd/controller-gen ;;
    kustomize) echo sigs.k8s.io/kustomize/kustomize/v5 ;;
    helm) echo helm.sh/helm/v3/cmd/helm ;;
    crane) echo github.com/google/go-containerregistry/cmd/crane ;;
    golangci-lint) echo . ;;
    govulncheck) echo golang.org/x/vuln/cmd/govulncheck ;;
    *) echo "no such tool: $1" >&2; return 1 ;;
  esac
}

module_of() {
  case $1 in
    controller-gen) echo sigs.k8s.io/controller-tools ;;
    kustomize) echo sigs.k8s.io/kustomize/kustomize/v5 ;;
    helm) echo helm.sh/helm/v3 ;;
    crane) echo github.com/google/go-containerregistry ;;
    golangci-lint) echo github.com/golangci/golangci-lint/v2 ;;
    govulncheck) echo golang.org/x/vuln ;;
  esac
}

build() {
  local tool=$1 package version folder ldflags kubernetes package_
  package=$(package_of "$tool")
  cd "$here/$tool"
  version=$(sed -nE "s#^(require )?[[:space:]]*$(module_of "$tool") (v[^ ]+).*#\2#p" go.mod | head -n1)
  # go.sum too: a tool of our own that is linked with another linter is another binary.
  folder=$cache/bin/$tool-$version-$(cat ../build.sh go.mod go.sum ./*.go 2>/dev/null | cksum | cut -d' ' -f1)-$(go env GOOS)-$(go env GOARCH)
  if [ ! -x "$folder/$tool" ]; then
    mkdir -p "$folder"
    echo "building $tool $version (once; takes up to a few minutes) ..." >&2
    ldflags="-s -w"
    case $tool in
      helm)
        # What `helm template` takes for the cluster's version when it cannot ask one.
        kubernetes=$(sed -nE 's#.*k8s.io/client-go v0\.([0-9]+)\..*#\1#p' go.mod)
        ldflags="$ldflags -X helm.sh/helm/v3/internal/version.version=$version"
        for package_ in chartutil lint/rules; do
          ldflags="$ldflags -X helm.sh/helm/v3/pkg/$package_.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package_.k8sVersionMinor=$kubernetes"
        done ;;
      kustomize) ldflags="$ldflags -X sigs.k8s.io/kustomize/api/provenance.version=$version" ;;
    esac
    local start=$SECONDS temporary
    temporary=$(mktemp "$folder/.$tool.XXXXXX")
    # A killed build leaves nothing that looks like a tool: the name appears only when the file is whole.
    if ! CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags "$ldflags" -o "$temporary" "$package" >&2; then
      rm -f "$temporary"
      echo "building $tool failed, see above" >&2
      return 1
    fi
    chmod 0755 "$temporary"
    mv "$temporary" "$folder/$tool"
    echo "built $tool in $((SECONDS - start)) s" >&2
  fi
  echo "$folder/$tool"
}

[ $# -gt 0 ] || { sed -n '2,7p' "${BASH_SOURCE[0]}" >&2; exit 2; }
for tool in "$@"; do (build "$tool"); done
