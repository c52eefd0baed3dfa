package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/lethe-dev/lethe/test/guest"
	"github.com/lethe-dev/lethe/test/stage"
)

// testPrograms are images of the tests' own, by the package of their program.
var testPrograms = map[string]string{"anybody": "./test/e2e/program"}

// testSteps are a run of the end-to-end tests on a cluster that is somebody's.
func (d *demo) testSteps() []step {
	return []step{
		{"1  Build what is needed, and the tests", d.buildTests, theirsAlone},
		{"1  Remove what an earlier run left", d.clearTheirs, theirsAlone},
		{"1  Bring the images to the nodes", d.bringTheirs, theirsAlone},
		{"2  Install Lethe with its chart; the key-encryption key is a file on a volume of its own", d.installTheirs, theirsAlone},
		{"2  A stand-in for Telegram and a PostgreSQL, in pods", d.serveTests, theirsAlone},
		{"3  The end-to-end tests that need no access to a node", d.runTests, theirsAlone},
	}
}

// test runs them, and removes every trace whatever came out and also after an interruption.
func (d *demo) test(ctx context.Context) error {
	err := d.play(ctx, d.testSteps())
	if d.theirs.guest.Begun == "" {
		return fmt.Errorf("%w\n\nNothing of this run is on the cluster", err) // what is marked may be another's
	}
	d.say("\n4  Remove every trace")
	if gone := d.removeTheirs(context.WithoutCancel(ctx), d.theirs.guest.Begun); gone != nil && !errors.Is(gone, guest.ErrNothing) {
		return errors.Join(err, gone)
	}
	if err == nil {
		d.say("\nThe tests passed, and all that they made is gone from the cluster of context %s.", d.theirs.facts.Context)
	}
	return err
}

// testProgram is the tests, compiled.
func (d *demo) testProgram() string { return d.Path("bin", "e2e.test") }

func (d *demo) buildTests(ctx context.Context) error {
	if err := d.buildTheirs(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", d.testProgram(), "./test/e2e")
	cmd.Dir = d.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests: %w: %s", err, out)
	}
	return nil
}

func (d *demo) serveTests(ctx context.Context) error {
	t := d.theirs
	telegram, err := t.services.Telegram(ctx)
	if err != nil {
		return err
	}
	database, err := t.services.Postgres(ctx)
	if err != nil {
		return err
	}
	given := &stage.Given{Dir: d.Dir, Realm: d.Realm, Kubectl: d.KubectlPath, Images: t.images, Telegram: telegram, Database: database, Namespace: guest.Namespace}
	return given.Write(d.given())
}

func (d *demo) given() string { return d.Path("secrets", "given") }

func (d *demo) runTests(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, d.testProgram(), "-test.v", "-test.timeout", "40m", "-test.run", "^TestEndToEnd$")
	cmd.Dir, cmd.Env = filepath.Join(d.Root, "test", "e2e"), append(os.Environ(), stage.GivenVariable+"="+d.given())
	cmd.Stdout, cmd.Stderr = indented{d.out}, indented{d.out}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the tests, see above: %w", err)
	}
	return nil
}
