"""Guidance of its own for a part of the steps, or with a model of its own for the negative side."""

from __future__ import annotations

from comfy_api.latest import io


class CFGOverride(io.ComfyNode):
    """Another scale for a part of the schedule."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CFGOverride",
            display_name="CFG Override",
            category="model/sampling/guiders",
            description="Guides with another scale in a part of the schedule. The last one in a row counts.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1, round=0.01),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, cfg, start_percent, end_percent):
        from comfy.patcher_extension import WrappersMP

        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        first, last = to_sigma(start_percent), to_sigma(end_percent)

        def with_own_scale(executor, x, timestep, *args, **kwargs):
            guider = executor.class_obj
            before = guider.cfg
            if last <= float(timestep.flatten()[0]) <= first:
                guider.cfg = cfg
            try:
                return executor(x, timestep, *args, **kwargs)
            finally:
                guider.cfg = before

        model = model.clone()
        model.add_wrapper(WrappersMP.PREDICT_NOISE, with_own_scale)
        return io.NodeOutput(model)


class DualModelGuider(io.ComfyNode):
    """Two networks: one follows the prompt, the other says where to go away from."""

    @classmethod
    def define_schema(cls):
        without = "Without one, the model itself is asked; without a conditioning, it gets no prompt at all."
        return io.Schema(
            node_id="DualModelGuider",
            display_name="Dual Model CFG Guider",
            category="model/sampling/guiders",
            description="Follows the positive conditioning in one model, away from the other one.",
            is_experimental=True,
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Float.Input("cfg", default=4.0, min=0.0, max=100.0, step=0.1, round=0.01),
                io.Model.Input("model_negative", optional=True, tooltip=without),
                io.Conditioning.Input("negative", optional=True),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(cls, model, positive, cfg, model_negative=None, negative=None):
        import comfy.guiders
        import comfy.samplers

        guider = comfy.samplers.CFGGuider(model)
        if model_negative is not None:
            guider = comfy.guiders.Guider_DualModel(model, model_negative)
        guider.set_conds(positive, [[None, {}]] if negative is None else negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)

    get_guider = execute
