package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/internal/resources"
)

type logOptions struct {
	store            string
	follow, previous bool
	container        string
	tail             int64
	since            time.Duration
	timestamps       bool
	tailGiven        bool
}

func newLogs(s *shell) *cobra.Command {
	o := &logOptions{}
	cmd := &cobra.Command{
		Use:   "logs ([NAMESPACE/]BOT | --store [NAMESPACE/]STORE)",
		Short: "Print the log of a bot, or of the last sweep of a store",
		Long: `Print the log of a bot's container, or of the last sweep of a store. --previous takes the container before the last restart,
and of a store the sweep before the last.

A bot whose container has not started yet has no log; what fetches its credentials has one: -c unseal. It needs the role
Operate in the namespace, or the right to read logs there.`,
		Example: `  kubectl lethe logs acme-bots/support -f
  kubectl lethe logs acme-bots/support --previous --tail 50
  kubectl lethe logs --store platform-data/chat`,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.store != "") || len(args) > 1 {
				return errors.New("name one bot, or a store with --store")
			}
			return nil
		},
		ValidArgsFunction: s.completeBots,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.tailGiven = cmd.Flags().Changed("tail")
			if o.follow && o.previous {
				return errors.New("-f waits for what comes, and --previous shows what has ended: give one of them")
			}
			if o.tailGiven && o.tail < 0 {
				return errors.New("--tail: say how many lines, 0 or more")
			}
			if o.since < 0 {
				return errors.New("--since: say a length of time such as 10m")
			}
			if o.store != "" {
				return s.logsOfSweep(cmd.Context(), o)
			}
			return s.logsOfBot(cmd.Context(), o, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.store, "store", "", "DataStore whose last sweep is meant, as namespace/name")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on until it ends")
	f.BoolVarP(&o.previous, "previous", "p", false, "of the container before the last restart; with --store, of the sweep before the last")
	f.StringVarP(&o.container, "container", "c", "", "container of the pod; left out, the bot's own")
	f.Int64Var(&o.tail, "tail", 0, "so many lines from the end; left out, all")
	f.DurationVar(&o.since, "since", 0, "what is younger than this, such as 10m")
	f.BoolVar(&o.timestamps, "timestamps", false, "with the time in front of each line")
	_ = cmd.RegisterFlagCompletionFunc("store", s.completeStores) // it was just added
	return cmd
}

func (s *shell) logsOfBot(ctx context.Context, o *logOptions, name string) error {
	key, err := s.reference("the bot", name)
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	var bot v1alpha1.BotDeployment
	if err := c.Get(ctx, key, &bot); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("there is no BotDeployment %s; `kubectl get bots -A` lists them", key)
		}
		return fmt.Errorf("read BotDeployment %s: %w", key, err)
	}
	var pod corev1.Pod
	err = c.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: resources.BotPodName(key.Name)}, &pod)
	switch {
	case apierrors.IsNotFound(err) && bot.Spec.OperatingMode == v1alpha1.ModeSuspended:
		return fmt.Errorf("BotDeployment %s is suspended and has no pod, so there is no log; set spec.operatingMode: Running to start it", key)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("BotDeployment %s has no pod; `kubectl lethe status bot %s` says why", key, key)
	case err != nil:
		return fmt.Errorf("read the pod of BotDeployment %s: %w", key, err)
	}
	container, err := o.pick(&pod, resources.ContainerBot)
	if err != nil {
		return err
	}
	if why := notStarted(&pod, container, o.previous); why != "" {
		return fmt.Errorf("%s; `kubectl lethe status bot %s` says what it waits for", why, key)
	}
	return s.stream(ctx, o, &pod, container)
}

// pick is the container that is meant. It repeats no name that the pod does not have.
func (o *logOptions) pick(pod *corev1.Pod, own string) (string, error) {
	if o.container == "" {
		return own, nil
	}
	var names []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		names = append(names, c.Name)
	}
	if !slices.Contains(names, o.container) {
		return "", fmt.Errorf("-c: the pod has no such container; it has %s", strings.Join(names, ", "))
	}
	return o.container, nil
}

// notStarted says why a container has no log yet.
func notStarted(pod *corev1.Pod, container string, previous bool) string {
	for _, st := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if st.Name != container {
			continue
		}
		switch {
		case previous && st.LastTerminationState.Terminated == nil:
			return fmt.Sprintf("container %s was not restarted, so there is no earlier log: leave --previous out", container)
		case !previous && st.State.Running == nil && st.State.Terminated == nil && st.LastTerminationState.Terminated == nil:
			return fmt.Sprintf("container %s has not started yet, so it has no log", container)
		}
		return ""
	}
	return fmt.Sprintf("container %s has not started yet, so it has no log", container)
}

func (s *shell) logsOfSweep(ctx context.Context, o *logOptions) error {
	key, err := s.reference("--store", o.store)
	if err != nil {
		return err
	}
	c, err := s.client()
	if err != nil {
		return err
	}
	if err := c.Get(ctx, key, &v1alpha1.DataStore{}); err != nil {
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("there is no DataStore %s; `kubectl get stores -A` lists them", key)
		}
		return fmt.Errorf("read DataStore %s: %w", key, err)
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingLabels(resources.StoreLabels(key.Name, resources.ComponentSweeper))); err != nil {
		return fmt.Errorf("list the sweeps of DataStore %s: %w", key, err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	i, what := 0, "no sweep is there"
	if o.previous {
		i, what = 1, "no sweep before the last is there"
	}
	if len(pods.Items) <= i {
		return fmt.Errorf("%s: Kubernetes keeps the last that ended and the last that failed; DataStore %s is swept every hour, and `kubectl lethe status store %s` says what the last one found", what, key, key)
	}
	pod := &pods.Items[i]
	container, err := o.pick(pod, resources.ContainerSweeper)
	if err != nil {
		return err
	}
	if why := notStarted(pod, container, false); why != "" {
		return fmt.Errorf("sweep %s: %s; `kubectl -n %s describe pod %s` says what it waits for", pod.Name, why, pod.Namespace, pod.Name)
	}
	s.note("sweep %s, begun %s", pod.Name, pod.CreationTimestamp.UTC().Format(time.RFC3339))
	before := *o
	before.previous = false // it is another pod, not another container of this one
	return s.stream(ctx, &before, pod, container)
}

// stream writes a log. On a terminal it loses what that would obey.
func (s *shell) stream(ctx context.Context, o *logOptions, pod *corev1.Pod, container string) (err error) {
	config, err := s.config.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	options := &corev1.PodLogOptions{Container: container, Follow: o.follow, Previous: o.previous, Timestamps: o.timestamps}
	if o.tailGiven {
		options.TailLines = &o.tail
	}
	if o.since > 0 {
		seconds := max(1, int64(o.since.Seconds()))
		options.SinceSeconds = &seconds
	}
	log, err := set.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not read logs in namespace %s: a Tenant's spec.access gives it with the role Operate: %w", pod.Namespace, err)
	case err != nil:
		return fmt.Errorf("read the log of container %s of pod %s/%s: %w", container, pod.Namespace, pod.Name, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	in := bufio.NewReader(log)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if err := s.data(line); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
			return nil // it has ended, or the person has
		case err != nil:
			return fmt.Errorf("read the log of pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
}
