"""How runs are judged, one definition per measure: training, quickstart and benchmarks share them."""
