"""Design-space exploration: which hardware would run text-to-image and text-to-video inference better?

A *spec* names a base device, parameters to vary, workloads, objectives and constraints (`spec`). A *search* proposes
designs (`search`), an *engine* evaluates them in processes or on a cluster (`engines`, `evaluate`), a *study* keeps each
as it is done (`study`); area, power and cost come from a model of the silicon (`silicon`); what follows is in `analysis`
and `report`.
"""
