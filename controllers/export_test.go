package controllers

import (
	"sigs.k8s.io/controller-runtime/pkg/controller"
)

// SeenBots is the highest revision of a bot that was counted.
func (c *Changes) SeenBots() uint64 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.seen[0]
}

// Options are those that every controller is made with.
func (q *queues) Options() controller.Options { return q.options() }

// What tests of this package look at from without.

const ChangesWindow = changesWindow

var CachedObjects = cachedObjects
var Transform = func(c *Changes) func(any) (any, error) { return (&keeper{changes: c}).keep }
var ConditionTypes = conditionTypes
var NewQueues = newQueues
