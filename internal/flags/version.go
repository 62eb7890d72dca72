package flags

import (
	"runtime/debug"
	"time"
)

// release is set by the linker: -ldflags "-X github.com/elsewhere-net/elsewhere/internal/flags.release=v1.2.3".
var release string

// Version is the release, or else the module's version or the revision that the program was built from,
// or "devel".
func Version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

// BuildTime is the time of the commit that the program was built from; zero where the build does not say. No clock
// that is right is before it.
func BuildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			built, _ := time.Parse(time.RFC3339, s.Value) // zero if it is none
			return built
		}
	}
	return time.Time{}
}
