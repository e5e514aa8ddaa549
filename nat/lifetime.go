package nat

// lifetimeStudy finds out how long mappings live.
type lifetimeStudy struct{ done bool }

func (m *Measurement) studyLifetime() {
	if !m.life.done && m.mapping.done {
		m.life.done = true
	}
}
