// Package policies reads the admission policies that Lethe ships, for the tests that hold their words.
package policies

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// All ValidatingAdmissionPolicies of config/admission and config/guard, of the repository in a folder.
//
// Errors: a folder without a file, a file that cannot be read, a policy that is none.
func All(root string) ([]admissionv1.ValidatingAdmissionPolicy, error) {
	var out []admissionv1.ValidatingAdmissionPolicy
	for _, folder := range []string{"admission", "guard"} {
		files, err := filepath.Glob(filepath.Join(root, "config", folder, "*.yaml"))
		if err != nil {
			return nil, fmt.Errorf("find policies: %w", err)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("no files in config/%s of %s", folder, root)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read policies: %w", err)
			}
			for document := range strings.SplitSeq("\n"+string(content), "\n---") {
				var kind struct{ Kind string }
				if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
				if kind.Kind != "ValidatingAdmissionPolicy" {
					continue
				}
				var policy admissionv1.ValidatingAdmissionPolicy
				if err := yaml.UnmarshalStrict([]byte(document), &policy); err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
				out = append(out, policy)
			}
		}
	}
	return out, nil
}
