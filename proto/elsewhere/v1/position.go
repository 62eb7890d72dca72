// Package elsewherev1 is the API: what clients, agents and coordinators say to each other, and what they keep.
package elsewherev1

// PositionHeader is the metadata in which each answer of a coordinator tells how much of the log it has folded: the log's
// name and the position, "NAME/POSITION". Whoever sends it back with the next call is told nothing older, whichever
// coordinator that one comes to.
const PositionHeader = "elsewhere-position"
