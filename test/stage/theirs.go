package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/test/pg"
	"github.com/lethe-dev/lethe/test/telegram"
)

// Services are what plays beside Lethe in a namespace of a cluster that is not the stage's own.
type Services struct {
	stage     *Stage
	client    client.Client
	namespace string
	images    TheirImages
	listeners []net.Listener
	ctx       context.Context // of what leads into the cluster
	end       context.CancelFunc
}

// NewServices takes a namespace that is there and empty.
func (s *Stage) NewServices(ctx context.Context, c client.Client, namespace string, images TheirImages) *Services {
	v := &Services{stage: s, client: c, namespace: namespace, images: images}
	v.ctx, v.end = context.WithCancel(ctx)
	return v
}

// Close ends what leads from this machine into the cluster.
func (v *Services) Close() {
	v.end()
	for _, l := range v.listeners {
		_ = l.Close() // nobody connects any more
	}
}

const (
	servicesUser = 65532 // hack/image's
	keyserverUID = 65533 // the chart's
)

func restricted(uid int64) *corev1.PodSecurityContext {
	yes := true
	return &corev1.PodSecurityContext{
		RunAsNonRoot: &yes, RunAsUser: &uid, RunAsGroup: &uid, FSGroup: &uid, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func walled() *corev1.SecurityContext {
	yes, no := true, false
	return &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
}

func limited(cpu, memory, most string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(most)},
	}
}

// pod of the demo's: restricted, without a token, and never started again, since what it knows is in its memory.
func (v *Services) pod(name, namespace string, uid int64, c corev1.Container) *corev1.Pod {
	no := false
	c.Name, c.ImagePullPolicy, c.SecurityContext = name, v.images.Pull, walled()
	c.Env = append(c.Env, corev1.EnvVar{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}})
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/part-of": "lethe-demo", "app.kubernetes.io/name": name}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no, SecurityContext: restricted(uid), Containers: []corev1.Container{c},
		},
	}
}

func scratch(name, medium, size string) corev1.Volume {
	limit := resource.MustParse(size)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMedium(medium), SizeLimit: &limit}}}
}

// secret makes a Secret of one key, and the volume of it.
func (v *Services) secret(ctx context.Context, name, key, value string) (corev1.Volume, error) {
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v.namespace, Name: name}, StringData: map[string]string{key: value}}
	if err := v.client.Create(ctx, o); err != nil {
		return corev1.Volume{}, fmt.Errorf("make secret %s: %w", name, err)
	}
	mode := int32(0o440)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, DefaultMode: &mode}}}, nil
}

// start makes a pod and waits until a container of it runs, or has ended well.
func (v *Services) start(ctx context.Context, pod *corev1.Pod) error {
	if err := v.client.Create(ctx, pod); err != nil {
		return fmt.Errorf("make pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return Until(ctx, 3*time.Minute, "start pod "+pod.Namespace+"/"+pod.Name, func(ctx context.Context) (string, error) {
		if err := v.client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return "", err
		}
		switch pod.Status.Phase {
		case corev1.PodRunning, corev1.PodSucceeded:
			return "", nil
		case corev1.PodFailed:
			return "", Stop(errors.New("it failed: " + v.why(ctx, pod)))
		}
		return v.why(ctx, pod), nil
	})
}

// why a pod does not run: what its conditions, its containers and the events about it say.
func (v *Services) why(ctx context.Context, pod *corev1.Pod) string {
	out := []string{string(pod.Status.Phase)}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			out = append(out, c.Message)
		}
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil {
			out = append(out, fmt.Sprintf("%s: %s %s", c.Name, w.Reason, w.Message))
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			out = append(out, fmt.Sprintf("%s ended with %d", c.Name, t.ExitCode))
		}
	}
	var events corev1.EventList
	if v.client.List(ctx, &events, client.InNamespace(pod.Namespace)) == nil {
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning {
				out = append(out, e.InvolvedObject.Kind+" "+e.InvolvedObject.Name+": "+e.Message)
			}
		}
	}
	return strings.Join(out, "; ")
}

// said waits for the one line of JSON that a pod prints once it answers.
func (v *Services) said(ctx context.Context, pod string, into any) error {
	return Until(ctx, 2*time.Minute, "wait until pod "+pod+" says that it is ready", func(ctx context.Context) (string, error) {
		var p corev1.Pod
		if err := v.client.Get(ctx, client.ObjectKey{Namespace: v.namespace, Name: pod}, &p); err != nil {
			return "", err
		}
		out, err := v.stage.Kubectl(ctx, "", "logs", "--namespace", v.namespace, pod)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), into) == nil {
				return "", nil
			}
		}
		if p.Status.Phase != corev1.PodRunning {
			return "", Stop(fmt.Errorf("it ended; its log: %s", out[max(0, len(out)-2000):]))
		}
		return "the line", nil
	})
}

// forward leads a free port of this machine's loopback to a port of a pod, until Close. Each connection has a kubectl
// port-forward of its own: one of them ends with the first connection that its server resets, as PostgreSQL does
// after a client has said goodbye.
func (v *Services) forward(ctx context.Context, pod string, port int) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("lead to pod %s: %w", pod, err)
	}
	v.listeners = append(v.listeners, l)
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer func() { _ = here.Close() }() // its other end has the error
				if err := v.lead(v.ctx, here, pod, port); err != nil {
					v.stage.Note("lead to pod %s: %v", pod, err)
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// lead carries one connection to a pod's port, and ends with it.
func (v *Services) lead(ctx context.Context, here net.Conn, pod string, port int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := v.stage.command(ctx, v.stage.KubectlPath, "port-forward", "--namespace", v.namespace, "--address", "127.0.0.1", "pod/"+pod, fmt.Sprintf(":%d", port))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(v.stage.Path("logs", "forward-"+pod+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // written by kubectl
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start kubectl: %w", err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // it was killed
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		local, ok := forwarded(lines.Text())
		if !ok {
			continue
		}
		there, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", local))
		if err != nil {
			return fmt.Errorf("reach kubectl port-forward: %w", err)
		}
		defer func() { _ = there.Close() }() // whoever spoke has the error
		go func() { _, _ = io.Copy(io.Discard, out) }()
		ended := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
			go func() {
				_, _ = io.Copy(way[0], way[1]) // an end of either side is the end of both
				ended <- struct{}{}
			}()
		}
		select {
		case <-ended:
		case <-ctx.Done():
		}
		return nil
	}
	return fmt.Errorf("kubectl port-forward does not begin: its log is %s", log.Name())
}

// forwarded reads the port out of "Forwarding from 127.0.0.1:43567 -> 8081".
func forwarded(line string) (int, bool) {
	rest, ok := strings.CutPrefix(line, "Forwarding from 127.0.0.1:")
	if !ok {
		return 0, false
	}
	port, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(port)
	return n, err == nil
}

// Telegram starts the stand-in as a pod. Bots reach it at the pod's address, the demo its control side through the
// API server.
func (v *Services) Telegram(ctx context.Context) (*Telegram, error) {
	const port, control = 8443, 8081
	token := Random()
	volume, err := v.secret(ctx, "telegram-control", "token", token)
	if err != nil {
		return nil, err
	}
	pod := v.pod("telegram", v.namespace, servicesUser, corev1.Container{
		Image: v.images.Telegram,
		Args: []string{
			"--listen", fmt.Sprintf("$(POD_IP):%d", port), "--control-listen", fmt.Sprintf("127.0.0.1:%d", control),
			"--control-token-file", "/var/run/control/token", "--ready-file", "-",
		},
		Resources:    limited("10m", "32Mi", "128Mi"),
		VolumeMounts: []corev1.VolumeMount{{Name: volume.Name, MountPath: "/var/run/control", ReadOnly: true}},
	})
	pod.Spec.Volumes = []corev1.Volume{volume}
	if err := v.start(ctx, pod); err != nil {
		return nil, err
	}
	var ready struct{ API, CA string }
	if err := v.said(ctx, pod.Name, &ready); err != nil {
		return nil, err
	}
	local, err := v.forward(ctx, pod.Name, control)
	if err != nil {
		return nil, err
	}
	api, err := url.Parse(ready.API)
	if err != nil {
		return nil, fmt.Errorf("read where the stand-in listens: %w", err)
	}
	return &Telegram{
		API: ready.API, CA: ready.CA, Host: api.Hostname(), Port: port, Control: &telegram.Client{URL: fmt.Sprintf("http://127.0.0.1:%d", local), Token: token},
	}, nil
}

// Database is a PostgreSQL in the cluster: where sweeps find it, and how this machine does.
type Database struct {
	Host string
	Port int32
	Here *pg.Server
}

// Postgres starts a PostgreSQL as a pod.
func (v *Services) Postgres(ctx context.Context) (*Database, error) {
	const port = 5432
	password := Random()
	volume, err := v.secret(ctx, "postgres-superuser", "password", password)
	if err != nil {
		return nil, err
	}
	// initdb wants to know the name of the user that it runs as, and images of anybody's do not know ours.
	passwd := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v.namespace, Name: "postgres-passwd"}, Data: map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0:root:/:/none\npostgres:x:%d:%d:postgres:/data:/none\n", servicesUser, servicesUser),
	}}
	if err := v.client.Create(ctx, passwd); err != nil {
		return nil, fmt.Errorf("make configmap %s: %w", passwd.Name, err)
	}
	pod := v.pod("postgres", v.namespace, servicesUser, corev1.Container{
		Image:     v.images.Postgres,
		Command:   []string{"/stage/stagehand", "postgres", "--dir", "/data/postgres", "--listen", fmt.Sprintf("$(POD_IP):%d", port), "--password-file", "/var/run/superuser/password"},
		Resources: limited("100m", "256Mi", "1Gi"),
		VolumeMounts: []corev1.VolumeMount{
			{Name: volume.Name, MountPath: "/var/run/superuser", ReadOnly: true}, {Name: "passwd", MountPath: "/etc/passwd", SubPath: "passwd", ReadOnly: true},
			{Name: "stage", MountPath: "/stage", ReadOnly: true}, {Name: "data", MountPath: "/data"}, {Name: "tmp", MountPath: "/tmp"}, {Name: "shm", MountPath: "/dev/shm"},
		},
	})
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "stage", Image: v.images.Stagehand, ImagePullPolicy: v.images.Pull, Args: []string{"install", "/stage"}, SecurityContext: walled(),
		Resources: limited("10m", "32Mi", "128Mi"), VolumeMounts: []corev1.VolumeMount{{Name: "stage", MountPath: "/stage"}},
	}}
	pod.Spec.Volumes = []corev1.Volume{
		volume, {Name: "passwd", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: passwd.Name}}}},
		scratch("stage", "", "64Mi"), scratch("data", "", "2Gi"), scratch("tmp", "", "64Mi"), scratch("shm", "Memory", "256Mi"),
	}
	if v.images.Postgres != v.images.Stagehand {
		pod.Spec.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent
	}
	if err := v.start(ctx, pod); err != nil {
		return nil, err
	}
	var ready struct{ Host, CA string }
	if err := v.said(ctx, pod.Name, &ready); err != nil {
		return nil, err
	}
	local, err := v.forward(ctx, pod.Name, port)
	if err != nil {
		return nil, err
	}
	authority := v.stage.Path("postgres-ca.crt")
	if err := os.WriteFile(authority, []byte(ready.CA), 0o600); err != nil {
		return nil, fmt.Errorf("keep the database's certificate authority: %w", err)
	}
	return &Database{Host: ready.Host, Port: port, Here: &pg.Server{Host: "127.0.0.1", Port: local, Password: password, CAFile: authority}}, nil
}

// Say runs a pod that prints a line, and waits until it has.
func (v *Services) Say(ctx context.Context, name, text string) error {
	pod := v.pod(name, v.namespace, servicesUser, corev1.Container{Image: v.images.Stagehand, Args: []string{"say", text}, Resources: limited("10m", "32Mi", "128Mi")})
	if err := v.start(ctx, pod); err != nil {
		return err
	}
	return Until(ctx, time.Minute, "wait for the end of pod "+name, func(ctx context.Context) (string, error) {
		if err := v.client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return "", err
		}
		if pod.Status.Phase != corev1.PodSucceeded {
			return v.why(ctx, pod), nil
		}
		return "", nil
	})
}

// GiveKEK makes a key-encryption key here and brings it to a volume of the cluster's, through a pod's standard input:
// it is in no object of the API.
func (v *Services) GiveKEK(ctx context.Context, class string) error {
	s := v.stage
	if err := os.MkdirAll(s.Path("kek"), 0o700); err != nil {
		return fmt.Errorf("make a folder for the key-encryption key: %w", err)
	}
	if err := os.Remove(s.KEKFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget an earlier key-encryption key: %w", err)
	}
	if _, err := s.Lethe(ctx, "", "keys", "generate-kek", s.KEKFile()); err != nil {
		return err
	}
	kek, err := os.ReadFile(s.KEKFile())
	if err != nil {
		return fmt.Errorf("read the key-encryption key: %w", err)
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: kekClaim},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		},
	}
	if class != "" {
		claim.Spec.StorageClassName = &class
	}
	if err := v.client.Create(ctx, claim); err != nil {
		return fmt.Errorf("claim a volume for the key-encryption key: %w", err)
	}
	pod := v.pod("fill-kek", SystemNamespace, keyserverUID, corev1.Container{
		Image: v.images.Stagehand, Args: []string{"wait"}, Resources: limited("10m", "32Mi", "128Mi"), VolumeMounts: []corev1.VolumeMount{{Name: "kek", MountPath: "/kek"}},
	})
	pod.Spec.Volumes = []corev1.Volume{{Name: "kek", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: kekClaim}}}}
	if err := v.start(ctx, pod); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, string(kek), "exec", "--stdin", "--namespace", SystemNamespace, pod.Name, "--", "/stagehand", "receive", "/kek/kek"); err != nil {
		return fmt.Errorf("bring the key-encryption key to its volume: %w", err)
	}
	// At once: a volume of one node's is free for the keyserver only when nothing else has it.
	if err := v.client.Delete(ctx, pod, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("end pod fill-kek: %w", err)
	}
	return nil
}

// InstallTheirs installs Lethe with its chart. ports are those of the API server's own endpoints; values is a file
// for helm, or "".
func (v *Services) InstallTheirs(ctx context.Context, ports []int32, values string) error {
	set := []string{
		"image.repository=" + v.images.Repository, "image.tag=" + v.images.LetheTag, "image.pullPolicy=" + string(v.images.Pull),
		"manager.replicas=1", "keyserver.replicas=1", "networkPolicy.apiServerPorts={" + joined(ports) + "}",
	}
	var more []string
	if values != "" {
		more = []string{"--values", values}
	}
	return v.stage.installChart(ctx, set, more...)
}

// joined are the ports of the API server, with those that stand before it.
func joined(ports []int32) string {
	all := []string{"443", "6443"}
	for _, p := range ports {
		if text := strconv.Itoa(int(p)); text != "443" && text != "6443" {
			all = append(all, text)
		}
	}
	return strings.Join(all, ",")
}
