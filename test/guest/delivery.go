package guest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Delivery is how images come to the nodes.
type Delivery struct {
	// Repository is what the images are called, without a tag.
	Repository string
	// Push says that the repository is a registry's: the images are pushed there, and nodes pull them.
	Push bool
	// Load is the command that brings an archive of an image to the nodes: the archive's path is put behind it.
	Load []string
}

// nowhere is what images are called that are only loaded: a name that no node can pull from anywhere, whatever is
// missing.
const nowhere = "demo.lethe.invalid/lethe"

// Ways are the choices, for messages.
const Ways = "either IMAGE=registry.example.com/you/lethe-demo, a repository that you may push to and nodes pull from without a password of the demo's, " +
	"or LOAD=kind, LOAD=k3d, LOAD=minikube, or LOAD='a command', which is given the path of an image's archive and brings it to every node"

// Deliver chooses. image and load are the user's words and may be empty; minikube says that the kubeconfig names
// minikube as who made the cluster.
func Deliver(image, load, kubeContext string, minikube bool) (Delivery, error) {
	if image != "" && load != "" {
		return Delivery{}, errors.New("IMAGE and LOAD are both set: say one of them. " + Ways)
	}
	if image != "" {
		repository, err := name.NewRepository(image, name.StrictValidation)
		if err != nil {
			return Delivery{}, fmt.Errorf("IMAGE=%s is not a repository with its registry and without a tag or digest: %w", image, err)
		}
		return Delivery{Repository: repository.Name(), Push: true}, nil
	}
	if load == "" {
		switch {
		case minikube:
			load = "minikube"
		case strings.HasPrefix(kubeContext, "kind-"):
			load = "kind"
		case strings.HasPrefix(kubeContext, "k3d-"):
			load = "k3d"
		default:
			return Delivery{}, fmt.Errorf("how images come to the nodes of context %q is not known: %s", kubeContext, Ways)
		}
	}
	d := Delivery{Repository: nowhere}
	switch load {
	case "kind":
		d.Load = []string{"kind", "load", "image-archive", "--name", strings.TrimPrefix(kubeContext, "kind-")}
	case "k3d":
		d.Load = []string{"k3d", "image", "import", "--cluster", strings.TrimPrefix(kubeContext, "k3d-")}
	case "minikube":
		d.Load = []string{"minikube", "--profile", kubeContext, "image", "load"}
	default:
		if d.Load = strings.Fields(load); len(d.Load) == 0 {
			return Delivery{}, errors.New("LOAD is blank: " + Ways)
		}
	}
	return d, nil
}

// String tells it in the question.
func (d Delivery) String() string {
	if d.Push {
		return "pushed to " + d.Repository + " with your own login, and pulled from there by the nodes"
	}
	return "brought to the nodes by: " + strings.Join(d.Load, " ") + " ARCHIVE"
}
