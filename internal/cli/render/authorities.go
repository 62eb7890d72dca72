package render

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// Authorities writes a list of certificate authorities. For people a pin is its beginning, which names it.
func (s Screen) Authorities(list *pb.ListAuthoritiesResponse) error {
	rows := [][]string{{"PIN", "SIGNS", "EXPIRES"}}
	items := make([]proto.Message, 0, len(list.GetAuthorities()))
	for _, a := range list.GetAuthorities() {
		items = append(items, a)
		pin, signs := a.GetPin(), "no"
		if s.Format == Table {
			pin = pin[:min(len(pin), 12)]
		}
		if a.GetInUse() {
			signs = "yes"
		}
		rows = append(rows, []string{pin, signs, stamp(a.GetExpireTime())})
	}
	return s.list(list, items, rows)
}
