package stage

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kekClaim is the claim that the keyserver's pods mount the key-encryption key from.
const kekClaim = "lethe-kek"

// keyserverGroup is what the chart runs the keyserver as.
const keyserverGroup = 65533

// KEKFile is where the key-encryption key lies on this machine: outside the cluster's folder and outside etcd.
func (s *Stage) KEKFile() string { return s.Path("kek", "kek") }

// KEK returns the key's 32 bytes, to search for them where they must not be.
func (s *Stage) KEK() ([]byte, error) {
	text, err := os.ReadFile(s.KEKFile())
	if err != nil {
		return nil, fmt.Errorf("read the key-encryption key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, errors.New("the key-encryption key's file does not hold 32 bytes in base64")
	}
	return key, nil
}

// PrepareKEK makes a key-encryption key if there is none, and a volume of this folder that the keyserver's pods mount
// by a claim. The pods stay restricted: a claim is allowed there, a hostPath is not.
func (s *Stage) PrepareKEK(ctx context.Context) error {
	if err := os.MkdirAll(s.Path("kek"), 0o700); err != nil {
		return fmt.Errorf("make a folder for the key-encryption key: %w", err)
	}
	if _, err := os.Stat(s.KEKFile()); errors.Is(err, fs.ErrNotExist) {
		if _, err := s.Lethe(ctx, "", "keys", "generate-kek", s.KEKFile()); err != nil {
			return err
		}
	}
	// The kubelet gives files of a volume that is read-only to nobody: whoever fills it does.
	for path, mode := range map[string]os.FileMode{s.Path("kek"): 0o750, s.KEKFile(): 0o440} {
		if err := errors.Join(os.Chown(path, os.Getuid(), keyserverGroup), os.Chmod(path, mode)); err != nil {
			return fmt.Errorf("let the keyserver read the key-encryption key: %w", err)
		}
	}
	info, err := s.Info(ctx)
	if err != nil {
		return err
	}
	c, err := s.Client()
	if err != nil {
		return err
	}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	empty := ""
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: SystemNamespace, Labels: map[string]string{
			"pod-security.kubernetes.io/enforce": "restricted",
		}}},
		&corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: kekClaim},
			Spec: corev1.PersistentVolumeSpec{
				Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				ClaimRef:                      &corev1.ObjectReference{Namespace: SystemNamespace, Name: kekClaim},
				PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: s.Path("kek")}},
				NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{
						Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{info.Network.NodeName},
					}},
				}}}},
			},
		},
		&corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: kekClaim},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &empty, VolumeName: kekClaim,
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
				Resources:   corev1.VolumeResourceRequirements{Requests: size},
			},
		},
	}
	for _, o := range objects {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make the key-encryption key's volume: %w", err)
		}
	}
	return nil
}

// Install installs Lethe with its chart, or brings an installation to this checkout's state, and waits until it is
// ready. set are more of helm's --set values.
func (s *Stage) Install(ctx context.Context, set ...string) error {
	full, err := s.LetheImage()
	if err != nil {
		return err
	}
	if err := s.endCrashing(ctx); err != nil {
		return err
	}
	image, tag, _ := strings.Cut(full, ":")
	return s.installChart(ctx, append([]string{
		"image.repository=" + image, "image.tag=" + tag, "image.pullPolicy=Never", "kek.volume.persistentVolumeClaim.readOnly=true",
	}, set...))
}

// installChart installs the chart with values beside those that every installation of a stage has.
func (s *Stage) installChart(ctx context.Context, set []string, more ...string) error {
	values := append([]string{"realm=" + s.Realm, "kek.volume.persistentVolumeClaim.claimName=" + kekClaim}, set...)
	args := []string{"upgrade", "--install", Release, "charts/lethe", "--namespace", SystemNamespace, "--timeout", "3m"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	if _, err := s.Helm(ctx, append(args, more...)...); err != nil {
		return fmt.Errorf("install the chart: %w", err)
	}
	return s.AwaitInstalled(ctx)
}

// endCrashing removes pods of an earlier, broken installation: they would wait for minutes before they are tried again.
func (s *Stage) endCrashing(ctx context.Context) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(SystemNamespace)); err != nil {
		return fmt.Errorf("look for crashing pods: %w", err)
	}
	for _, p := range pods.Items {
		for _, cs := range p.Status.ContainerStatuses {
			if cs.State.Waiting == nil || cs.RestartCount == 0 {
				continue
			}
			if err := c.Delete(ctx, &p); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("end a crashing pod: %w", err)
			}
		}
	}
	return nil
}

// AwaitInstalled waits until both Deployments are complete.
func (s *Stage) AwaitInstalled(ctx context.Context) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	return Until(ctx, 3*time.Minute, "wait for the manager and the keyserver", func(ctx context.Context) (string, error) {
		var missing []string
		for _, name := range []string{"lethe-manager", "lethe-keyserver"} {
			var d appsv1.Deployment
			if err := c.Get(ctx, client.ObjectKey{Namespace: SystemNamespace, Name: name}, &d); err != nil {
				return "", fmt.Errorf("read deployment %s: %w", name, err)
			}
			want := int32(1)
			if d.Spec.Replicas != nil {
				want = *d.Spec.Replicas
			}
			st := d.Status
			if st.ObservedGeneration < d.Generation || st.UpdatedReplicas < want || st.AvailableReplicas < want || st.Replicas != want {
				missing = append(missing, fmt.Sprintf("%s: %d of %d replicas are ready", name, st.AvailableReplicas, want))
			}
		}
		if missing != nil {
			return strings.Join(missing, "; ") + s.whyNot(ctx, c), nil
		}
		return "", nil
	})
}

// whyNot adds what keeps our own pods from being ready.
func (s *Stage) whyNot(ctx context.Context, c client.Client) string {
	var pods corev1.PodList
	if c.List(ctx, &pods, client.InNamespace(SystemNamespace)) != nil {
		return ""
	}
	why := map[string]bool{}
	for _, p := range pods.Items {
		for _, cs := range p.Status.ContainerStatuses {
			if w := cs.State.Waiting; w != nil {
				why[fmt.Sprintf("%s: %s %s", cs.Name, w.Reason, w.Message)] = true
			}
			if t := cs.LastTerminationState.Terminated; t != nil {
				why[fmt.Sprintf("%s ended with %d: %s", cs.Name, t.ExitCode, t.Message)] = true
			}
		}
	}
	out := ""
	for w := range why {
		out += " (" + w + ")"
	}
	return out
}
