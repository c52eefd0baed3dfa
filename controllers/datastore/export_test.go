package datastore

import (
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

// WakeSelected is what a store watches policies with.
func (r *Reconciler) WakeSelected() handler.EventHandler { return r.wakeSelected() }

// What tests of this package look at from without.

const OldPlanGrace = oldPlanGrace
const StaleAfter = staleAfter
const StartsWithin = startsWithin
