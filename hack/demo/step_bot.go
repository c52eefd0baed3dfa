package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lethe-dev/lethe/api/v1alpha1"
	"github.com/lethe-dev/lethe/test/stage"
)

const (
	botNamespace = "acme-bots"
	chatter      = 7001 // the user of Telegram who writes to the bot
)

// door starts the stand-in and lets acme's tenant, and nobody else, to it.
func (d *demo) door(ctx context.Context) error {
	address, err := netip.ParseAddr(d.info.Network.HostIP)
	if err != nil || !address.IsPrivate() {
		return fmt.Errorf("this machine's address for pods is %q: want a private one", d.info.Network.HostIP)
	}
	if d.telegram, err = d.StartTelegram(ctx, address.String()); err != nil {
		return err
	}
	if err := d.onlyAcmesDoor(ctx); err != nil {
		return err
	}
	d.note("On this cluster a NetworkPolicy is a wall: the node's packet filter holds pods to it as soon as the API knows their address.")
	return nil
}

// onlyAcmesDoor opens the stand-in to acme's tenant, and wants it closed to everybody else.
func (d *demo) onlyAcmesDoor(ctx context.Context) error {
	if err := d.openDoor(ctx, "acme", d.telegram.Host, d.telegram.Port); err != nil {
		return err
	}
	opened, err := d.opens(ctx, botNamespace)
	if err != nil {
		return err
	}
	if !opened {
		return fmt.Errorf("no NetworkPolicy of %s opens %s", botNamespace, d.telegram.API)
	}
	if opened, err = d.opens(ctx, "globex-bots"); err != nil {
		return err
	}
	if opened {
		return errors.New("globex's namespace opens acme's address")
	}
	// A bot cannot open it by itself.
	bots, err := quickstart[v1alpha1.BotDeployment](d, "bot.yaml")
	if err != nil {
		return err
	}
	own := bots[0]
	own.Spec.Egress = []v1alpha1.EgressRule{{CIDR: block(d.telegram.Host), Ports: []v1alpha1.EgressPort{{Protocol: "TCP", Port: d.telegram.Port}}}}
	err = d.client.Create(ctx, own, client.DryRunAll)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "a private or special address") {
		return fmt.Errorf("a bot that opens a private address by itself is not refused as such: %w", err)
	}
	d.note("%s: acme's NetworkPolicy opens it, globex's does not, and a bot that tries is refused", d.telegram.API)
	return nil
}

// opens says whether a NetworkPolicy of a namespace lets pods to the stand-in.
func (d *demo) opens(ctx context.Context, namespace string) (bool, error) {
	var policies networkingv1.NetworkPolicyList
	if err := d.client.List(ctx, &policies, client.InNamespace(namespace)); err != nil {
		return false, fmt.Errorf("read network policies: %w", err)
	}
	if len(policies.Items) == 0 {
		return false, fmt.Errorf("namespace %s has no NetworkPolicy at all", namespace)
	}
	for _, p := range policies.Items {
		for _, rule := range p.Spec.Egress {
			for _, to := range rule.To {
				for _, port := range rule.Ports {
					if to.IPBlock != nil && to.IPBlock.CIDR == d.telegram.Host+"/32" && port.Port != nil && port.Port.IntVal == d.telegram.Port {
						return true, nil
					}
				}
			}
		}
	}
	return false, nil
}

// bot seals a token and applies the bot that carries it.
func (d *demo) bot(ctx context.Context) error {
	d.token = "4242001:AA" + stage.Random()
	d.control = "control-" + stage.Random()
	bots, err := quickstart[v1alpha1.BotDeployment](d, "bot.yaml")
	if err != nil {
		return err
	}
	bot := bots[0]
	bot.Spec.ImagePullPolicy = corev1.PullNever
	switch {
	case d.theirs != nil:
		bot.Spec.Image, bot.Spec.ImagePullPolicy = d.theirs.images.Bot, d.theirs.images.Pull
	case !d.simulated:
		if bot.Spec.Image, err = d.BotImage(); err != nil {
			return err
		}
	}
	// Not a secret: it stands where secrets must not, so that the search of step 4 is known to find things.
	bot.Spec.Env = append(bot.Spec.Env, v1alpha1.EnvVar{Name: "DEMO_CONTROL", Value: d.control})
	if d.telegram != nil {
		// A Bot API server of one's own with an authority of one's own: the authority comes as a file, like a secret.
		bot.Spec.Channels[0].Telegram.APIURL = d.telegram.API
		bot.Spec.Env = append(bot.Spec.Env, v1alpha1.EnvVar{Name: "SSL_CERT_FILE", Value: "/var/run/lethe/credentials/telegram-ca"})
		bot.Spec.Credentials = append(bot.Spec.Credentials, v1alpha1.Credential{Name: "telegram-ca", Sealed: "seal.v1.not.sealed.yet.but.soon"})
		if d.botID, err = d.telegram.Control.AddBot(ctx, d.token, "acme_support_bot"); err != nil {
			return err
		}
	}
	path, err := d.write("bot.yaml", bot)
	if err != nil {
		return err
	}
	sealed, err := d.Lethe(ctx, d.token, "seal", "-f", path, "--credential", "telegram-token")
	if err != nil {
		return err
	}
	bot.Spec.Credentials[0].Sealed = v1alpha1.SealedValue(strings.TrimSpace(sealed))
	if d.telegram != nil {
		authority, err := d.Lethe(ctx, d.telegram.CA, "seal", "-f", path, "--credential", "telegram-ca")
		if err != nil {
			return err
		}
		bot.Spec.Credentials[len(bot.Spec.Credentials)-1].Sealed = v1alpha1.SealedValue(strings.TrimSpace(authority))
	}
	if strings.Contains(sealed, d.token) || !strings.HasPrefix(sealed, "seal.v1.") {
		return errors.New("what kubectl lethe seal printed is no sealed value")
	}
	d.note("kubectl lethe seal → %.60s… (%d characters)", strings.TrimSpace(sealed), len(sealed))
	if err := d.apply(ctx, "bot.yaml", bot); err != nil {
		return err
	}
	if err := d.await(ctx, bot, v1alpha1.ConditionReady, 2*time.Minute); err != nil {
		return err
	}
	out, err := d.Kubectl(ctx, "", "get", "bots,statefulsets,pods,secrets", "-n", botNamespace)
	if err != nil {
		return err
	}
	d.printed(out)
	return nil
}

// talk writes to the bot and wants its answer.
func (d *demo) talk(ctx context.Context) error {
	id, err := d.telegram.Control.UserSays(ctx, d.botID, chatter, "Is anybody there?")
	if err != nil {
		return err
	}
	m, err := d.telegram.Control.AwaitReply(ctx, d.botID, chatter, id, 30*time.Second)
	if err != nil {
		return err
	}
	if want := "You said: Is anybody there?"; m.Text != want {
		return fmt.Errorf("the bot answered %q, want %q", m.Text, want)
	}
	d.note("user: Is anybody there?")
	d.note("bot:  %s", m.Text)
	st, err := d.telegram.Control.Stats(ctx, d.botID)
	if err != nil {
		return err
	}
	if st.Conflicts != 0 || st.Polls == 0 {
		return fmt.Errorf("the token was polled %d times with %d conflicts, want some and none", st.Polls, st.Conflicts)
	}
	d.note("one consumer polls the token, and never were there two")
	return nil
}
