//go:build tools

// Package kuberouter pins the engine that enforces NetworkPolicy on the rig.
package kuberouter

import _ "github.com/cloudnativelabs/kube-router/v2/pkg/cmd"
