package bot

// What tests of this package look at from without.

var RunningSecret = runningSecret
