package probe

import (
	"fmt"
	"slices"
	"strings"
)

// sentence says where a path ends, compared with the one to another port, if there is one.
func (r *tracer) sentence(other *tracer) string {
	text := r.answered() + "; " + r.ending()
	if other != nil {
		text += r.compared(other)
	}
	if r.cut {
		text += "; the trace ran out of time"
	}
	return text
}

// answered says which hops answered, such as "hops 1-3 and 5 answered, the last is 198.51.100.1". The target
// itself is no hop on the way.
func (r *tracer) answered() string {
	var ranges []string
	var address string
	for i := 0; i < len(r.hops); i++ {
		from := i
		for i < len(r.hops) && r.hops[i].GetAddress() != "" && i+1 != r.end {
			address = r.hops[i].GetAddress()
			i++
		}
		switch i {
		case from:
		case from + 1:
			ranges = append(ranges, fmt.Sprint(i))
		default:
			ranges = append(ranges, fmt.Sprintf("%d-%d", from+1, i))
		}
	}
	switch n := len(ranges); {
	case n == 0:
		return "no hop answered"
	case n == 1 && !strings.Contains(ranges[0], "-"):
		return fmt.Sprintf("hop %s answered, it is %s", ranges[0], address)
	case n == 1:
		return fmt.Sprintf("hops %s answered, the last is %s", ranges[0], address)
	default:
		return fmt.Sprintf("hops %s and %s answered, the last is %s", strings.Join(ranges[:n-1], ", "), ranges[n-1], address)
	}
}

// ending says how the path ends.
func (r *tracer) ending() string {
	port, at := r.addr.Port(), ""
	if r.end > 0 {
		at = fmt.Sprintf(" at hop %d", r.end)
	}
	switch {
	case r.final.accepted:
		return fmt.Sprintf("port %d is reached%s", port, at)
	case r.reached():
		return fmt.Sprintf("port %d answers by RST%s", port, at)
	case r.final.from.IsValid():
		return fmt.Sprintf("%s rejects port %d by ICMP %d/%d", r.final.from, port, r.final.icmp.GetType(), r.final.icmp.GetCode())
	}
	if again := r.circle(); again != "" {
		return fmt.Sprintf("the path for port %d goes in circles: it comes to %s again and again", port, again)
	}
	return fmt.Sprintf("nothing beyond for port %d", port)
}

// circle returns the address of the last hop if an earlier hop has it too, with another one in between.
func (r *tracer) circle() string {
	var last string
	for _, h := range slices.Backward(r.hops) {
		switch {
		case last == "":
			last = h.GetAddress()
		case h.GetAddress() == last && r.hops[h.GetTtl()].GetAddress() != last:
			return last
		}
	}
	return ""
}

// compared says what the path to another port of the address tells about this one.
func (r *tracer) compared(other *tracer) string {
	port, open := r.addr.Port(), other.addr.Port()
	switch {
	case r.reached() && other.reached() && r.end > 0 && other.end > r.end:
		return fmt.Sprintf(", while port %d is reached at hop %d: something on the way answers for port %d", open, other.end, port)
	case r.reached():
		return ""
	case other.reached() && r.final.from.IsValid():
		return fmt.Sprintf(", while port %d gets through", open)
	case other.reached():
		return fmt.Sprintf(", while port %d gets through: packets to port %d are dropped after hop %d", open, port, r.lastHop())
	case other.lastHop() > r.lastHop():
		return fmt.Sprintf(", while port %d gets as far as hop %d", open, other.lastHop())
	}
	return fmt.Sprintf(", and port %d gets no further: the path ends there, or every port is shut alike", open)
}
