package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/elsewhere-net/elsewhere/internal/cli/render"
	"github.com/elsewhere-net/elsewhere/pkg/aggregate"
)

// version is the version command; build is the version of the program.
func (s *settings) version(build string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Long:    "Say which version this is, which Go it was built with, and which judge is compiled in.",
		Example: "  elsewhere version\n  elsewhere version -J",
		Args:    noWords,
		RunE: func(*cobra.Command, []string) error {
			screen, err := s.screen()
			if err != nil {
				return err
			}
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				Judge   string `json:"judge"`
			}{build, runtime.Version(), aggregate.Version}
			if screen.Format == render.JSON || screen.Format == render.JSONL {
				return written(json.NewEncoder(screen.Out).Encode(v))
			}
			_, err = fmt.Fprintf(screen.Out, "elsewhere %s\n%s\njudge %s\n", v.Version, v.Go, v.Judge)
			return written(err)
		},
	}
}
