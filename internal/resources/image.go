package resources

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ImagePattern is the grammar of an image's name as kubelets and container runtimes read it
// (github.com/distribution/reference): a registry with a port, a repository in lower case, a tag, a digest. The rules
// of spec.image and spec.helpers[].image have the same.
const ImagePattern = `^(([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[0-9]+)?/)?` +
	`[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?` +
	`(@(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}))?$`

// maxRepository is how long a registry and a repository may be together.
const maxRepository = 255

var (
	imageForm  = regexp.MustCompile(ImagePattern)
	identifier = regexp.MustCompile(`^[0-9a-f]{64}$`)
	repository = regexp.MustCompile(`^([^/]*/)?[^:@]*`)
	capital    = regexp.MustCompile(`^([^/]*/)?[^:@]*[A-Z]`)
)

// CheckImage says what keeps a text from being the name of an image.
func CheckImage(image string) error {
	switch {
	case imageForm.MatchString(image) && !identifier.MatchString(image) && len(repository.FindString(image)) <= maxRepository:
		return nil
	case strings.Contains(image, "://"):
		return errors.New("leave out the scheme, all that stands before the registry")
	case strings.ContainsAny(image, " \t\r\n"):
		return errors.New("it is written without spaces and line breaks")
	case len(repository.FindString(image)) > maxRepository:
		return fmt.Errorf("it has at most %d characters before tag and digest", maxRepository)
	case capital.MatchString(image):
		return errors.New("its repository is in lower case")
	default:
		return errors.New("it is written as registry.example/lethe:v1 or registry.example/lethe@sha256: and 64 digits")
	}
}
