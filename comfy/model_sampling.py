"""How a network's output becomes a denoised latent, and how noise levels map to its timesteps.

Two families of small classes meet in one object per model, for example `class M(ModelSamplingDiscrete, EPS)`:

- the *parameterisation* (`EPS`, `V_PREDICTION`, `CONST`, ...) scales the input, turns the raw output into the
  denoised latent, and mixes noise into a latent at the first noise level;
- the *schedule* (`ModelSamplingDiscrete`, `ModelSamplingDiscreteFlow`, ...) holds the `sigmas` table,
  ascending, and the maps sigma -> timestep and back.

Samplers see only sigma. `sigma_data` is the standard deviation of the data (Karras et al. 2022).
"""

import math

import torch

# What a schedule answers for "before the first step" when its noise has no upper bound.
SIGMA_BEFORE_START = 999999999.9

# alpha-bar of the last step after the zero-terminal-SNR rescale: not quite zero, so that sigma stays finite.
ZERO_SNR_LAST_ALPHA_BAR = 4.8973451890853435e-08


def reshape_sigma(sigma, noise_dim):
    """A sigma per sample, shaped to broadcast over a tensor of `noise_dim` dimensions; a single one as a
    scalar.
    """
    if sigma.nelement() == 1:
        return sigma.reshape(())
    return sigma.reshape(sigma.shape[0], *([1] * (noise_dim - 1)))


def rescale_zero_terminal_snr_sigmas(sigmas):
    """Stretch a schedule so that its last step carries no signal (Lin et al. 2023, algorithm 1)."""
    signal = (1 / (sigmas**2 + 1)).sqrt()  # sqrt(alpha-bar)
    first, last = signal[0].item(), signal[-1].item()
    alpha_bar = ((signal - last) * (first / (first - last))) ** 2
    alpha_bar[-1] = ZERO_SNR_LAST_ALPHA_BAR
    return ((1 - alpha_bar) / alpha_bar).sqrt()


class EPS:
    """The network predicts the noise; the latent is variance exploding: x = x0 + sigma * eps."""

    def calculate_input(self, sigma, noise):
        """The latent as the network wants it, at about unit variance."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return noise / (sigma**2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        """The estimate of x0 from the network's output and the unscaled latent."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """The latent to start from. At full denoise the noise has the variance that the network saw in
        training.
        """
        sigma = reshape_sigma(sigma, noise.ndim)
        level = torch.sqrt(1.0 + sigma**2) if max_denoise else sigma
        return noise * level + latent_image

    def inverse_noise_scaling(self, sigma, latent):
        """Undo `noise_scaling` for a latent left at noise level sigma."""
        return latent


class V_PREDICTION(EPS):  # noqa: N801 - the name that node packs use
    """The network predicts velocity (Salimans & Ho 2022)."""

    def calculate_denoised(self, sigma, model_output, model_input):
        """x0 = c_skip x - c_out v, with the coefficients of Karras et al. (2022)."""
        c_skip, c_out = self._skip_and_out(reshape_sigma(sigma, model_output.ndim))
        return model_input * c_skip - model_output * c_out

    def _skip_and_out(self, sigma):
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total**0.5


class EDM(V_PREDICTION):
    """The network predicts the residual of Karras et al. (2022): velocity with the opposite sign."""

    def calculate_denoised(self, sigma, model_output, model_input):
        """x0 = c_skip x + c_out F."""
        c_skip, c_out = self._skip_and_out(reshape_sigma(sigma, model_output.ndim))
        return model_input * c_skip + model_output * c_out


class V_PREDICTION_DDPM(EPS):  # noqa: N801
    """Velocity prediction of a network that sees the latent unscaled."""

    def calculate_input(self, sigma, noise):
        """The latent as it is."""
        return noise

    def calculate_denoised(self, sigma, model_output, model_input):
        """x0 = (x - sigma v) / sqrt(sigma^2 + 1)."""
        sigma = reshape_sigma(sigma, model_output.ndim)
        return (model_input - model_output * sigma) / (sigma**2 + 1.0) ** 0.5


class CONST:
    """Rectified flow: x = (1 - sigma) x0 + sigma noise, and the network predicts noise - x0."""

    def calculate_input(self, sigma, noise):
        """The latent as it is."""
        return noise

    def calculate_denoised(self, sigma, model_output, model_input):
        """x0 = x - sigma v."""
        return model_input - model_output * reshape_sigma(sigma, model_output.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """The straight line between latent and noise, at sigma."""
        sigma = reshape_sigma(sigma, noise.ndim)
        return sigma * (getattr(self, "noise_scale", 1.0) * noise) + (1.0 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma, latent):
        """The latent's share, brought back to full scale."""
        return latent / (1.0 - reshape_sigma(sigma, latent.ndim))


class X0(EPS):
    """The network predicts the clean latent."""

    def calculate_denoised(self, sigma, model_output, model_input):
        """The output as it is."""
        return model_output


class LCM(EPS):
    """A latent consistency model (Luo et al. 2023): noise prediction, pulled to the latent near its end."""

    time_scale = 10.0
    data_deviation = 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        """c_skip x + c_out x0, with the boundary condition that x is x0 at timestep 0."""
        time = reshape_sigma(self.timestep(sigma), model_output.ndim) * self.time_scale
        total = time**2 + self.data_deviation**2
        x0 = super().calculate_denoised(sigma, model_output, model_input)
        return x0 * (time / total**0.5) + model_input * (self.data_deviation**2 / total)


class IMG_TO_IMG(X0):  # noqa: N801
    """A network that maps a latent to a latent, unscaled."""

    def calculate_input(self, sigma, noise):
        """The latent as it is."""
        return noise


class IMG_TO_IMG_FLOW(CONST):  # noqa: N801
    """A flow between two images: the start is the picture, not noise."""

    def calculate_denoised(self, sigma, model_output, model_input):
        """The output as it is."""
        return model_output

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """The picture; no noise is mixed in."""
        return latent_image

    def inverse_noise_scaling(self, sigma, latent):
        """The flow runs from one to the picture."""
        return 1.0 - latent


class COSMOS_RFLOW:  # noqa: N801
    """Rectified flow written in variance-exploding sigma: flow time t = sigma / (sigma + 1)."""

    def calculate_input(self, sigma, noise):
        """The latent at flow time t."""
        return noise * (1.0 - self._flow_time(sigma, noise.ndim))

    def calculate_denoised(self, sigma, model_output, model_input):
        """x0 = (1 - t) x - t v."""
        t = self._flow_time(sigma, model_output.ndim)
        return model_input * (1.0 - t) - model_output * t

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """Variance exploding: x0 + sigma noise."""
        return noise * reshape_sigma(sigma, noise.ndim) + latent_image

    def inverse_noise_scaling(self, sigma, latent):
        """Nothing to undo."""
        return latent

    @staticmethod
    def _flow_time(sigma, ndim):
        return reshape_sigma(sigma / (sigma + 1), ndim)


def make_beta_schedule(schedule, n_timestep, linear_start=1e-4, linear_end=2e-2, cosine_s=8e-3):
    """The betas of a DDPM, in float64. "linear" is linear in sqrt(beta), as latent diffusion models are
    trained.
    """
    if schedule == "linear":
        return torch.linspace(linear_start**0.5, linear_end**0.5, n_timestep, dtype=torch.float64) ** 2
    if schedule == "sqrt_linear":
        return torch.linspace(linear_start, linear_end, n_timestep, dtype=torch.float64)
    if schedule == "sqrt":
        return torch.linspace(linear_start, linear_end, n_timestep, dtype=torch.float64) ** 0.5
    if schedule == "cosine":
        t = torch.arange(n_timestep + 1, dtype=torch.float64) / n_timestep + cosine_s
        alpha_bar = torch.cos(t / (1 + cosine_s) * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(0, 0.999)
    raise ValueError(f"Unknown beta schedule '{schedule}'. Known are linear, sqrt_linear, sqrt and cosine.")


def _settings(model_config):
    return {} if model_config is None else model_config.sampling_settings


class _SigmaTable(torch.nn.Module):
    """A schedule with an ascending table `sigmas`."""

    @property
    def sigma_min(self):
        """The smallest noise level (tensor scalar)."""
        return self.sigmas[0]

    @property
    def sigma_max(self):
        """The largest noise level (tensor scalar)."""
        return self.sigmas[-1]


class ModelSamplingDiscrete(_SigmaTable):
    """The schedule of a DDPM with `num_timesteps` steps; sigma between two steps is interpolated in log
    space.
    """

    def __init__(self, model_config=None, zsnr=None):
        super().__init__()
        settings = _settings(model_config)
        self._register_schedule(
            beta_schedule=settings.get("beta_schedule", "linear"),
            timesteps=settings.get("timesteps", 1000),
            linear_start=settings.get("linear_start", 0.00085),
            linear_end=settings.get("linear_end", 0.012),
            zsnr=settings.get("zsnr", False) if zsnr is None else zsnr,
        )
        self.sigma_data = 1.0

    def _register_schedule(
        self,
        given_betas=None,
        beta_schedule="linear",
        timesteps=1000,
        linear_start=1e-4,
        linear_end=2e-2,
        cosine_s=8e-3,
        zsnr=False,
    ):
        betas = given_betas
        if betas is None:
            betas = make_beta_schedule(beta_schedule, timesteps, linear_start, linear_end, cosine_s)
        self.num_timesteps = int(betas.shape[0])
        self.linear_start = linear_start
        self.linear_end = linear_end
        self.zsnr = zsnr
        alpha_bar = torch.cumprod(1.0 - betas, dim=0)
        sigmas = ((1 - alpha_bar) / alpha_bar) ** 0.5
        self.set_sigmas(rescale_zero_terminal_snr_sigmas(sigmas) if zsnr else sigmas)

    def set_sigmas(self, sigmas):
        """Replace the table; kept in float32 whatever the weights' dtype."""
        self.register_buffer("sigmas", sigmas.float())
        self.register_buffer("log_sigmas", sigmas.log().float())

    def timestep(self, sigma):
        """The index of the nearest step, by distance in log sigma."""
        distance = (sigma.log().to(self.log_sigmas.device).reshape(1, -1) - self.log_sigmas[:, None]).abs()
        return distance.argmin(dim=0).reshape(sigma.shape).to(sigma.device)

    def sigma(self, timestep):
        """The noise level at a timestep, which may be fractional."""
        t = timestep.float().to(self.log_sigmas.device).clamp(min=0, max=len(self.sigmas) - 1)
        below, above, w = t.floor().long(), t.ceil().long(), t.frac()
        log_sigma = (1 - w) * self.log_sigmas[below] + w * self.log_sigmas[above]
        return log_sigma.exp().to(timestep.device)

    def percent_to_sigma(self, percent):
        """The noise level (float) after this share of the schedule, 0 = start, 1 = end."""
        if percent <= 0.0:
            return SIGMA_BEFORE_START
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor((1.0 - percent) * 999.0)).item()


class ModelSamplingDiscreteDistilled(ModelSamplingDiscrete):
    """A DDPM distilled to `original_timesteps` of its steps, evenly spaced and counted from the last one."""

    original_timesteps = 50

    def __init__(self, model_config=None, zsnr=None):
        super().__init__(model_config, zsnr=zsnr)
        self.skip_steps = self.num_timesteps // self.original_timesteps
        kept = self.num_timesteps - 1 - self.skip_steps * torch.arange(self.original_timesteps)
        self.set_sigmas(self.sigmas[kept.flip(0)])

    def timestep(self, sigma):
        """The timestep of the teacher at the nearest of the kept levels."""
        return super().timestep(sigma) * self.skip_steps + (self.skip_steps - 1)

    def sigma(self, timestep):
        """The noise level at a timestep of the teacher."""
        return super().sigma((timestep.float() - (self.skip_steps - 1)) / self.skip_steps)


class ModelSamplingDiscreteEDM(ModelSamplingDiscrete):
    """A table of sigmas for a network that is conditioned on log(sigma) / 4."""

    def timestep(self, sigma):
        """c_noise of Karras et al. (2022)."""
        return 0.25 * sigma.log()

    def sigma(self, timestep):
        """The inverse of c_noise."""
        return (timestep / 0.25).exp()


class ModelSamplingContinuousEDM(_SigmaTable):
    """Any sigma between two bounds, conditioned on log(sigma) / 4; the table is only for schedulers that need
    one.
    """

    def __init__(self, model_config=None):
        super().__init__()
        settings = _settings(model_config)
        self.set_parameters(
            settings.get("sigma_min", 0.002),
            settings.get("sigma_max", 120.0),
            settings.get("sigma_data", 1.0),
        )

    def set_parameters(self, sigma_min, sigma_max, sigma_data):
        """Lay 1,000 levels between the bounds, even in log sigma."""
        self.sigma_data = sigma_data
        sigmas = torch.linspace(math.log(sigma_min), math.log(sigma_max), 1000).exp()
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())

    def timestep(self, sigma):
        """c_noise of Karras et al. (2022)."""
        return 0.25 * sigma.log()

    def sigma(self, timestep):
        """The inverse of c_noise."""
        return (timestep / 0.25).exp()

    def percent_to_sigma(self, percent):
        """The noise level after this share of the schedule, even in log sigma."""
        if percent <= 0.0:
            return SIGMA_BEFORE_START
        if percent >= 1.0:
            return 0.0
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return math.exp(low + (high - low) * (1.0 - percent))


class ModelSamplingContinuousV(ModelSamplingContinuousEDM):
    """Continuous time for velocity networks: sigma = tan(t pi / 2)."""

    def timestep(self, sigma):
        """The angle between signal and noise, as a share of a right angle."""
        return sigma.atan() / math.pi * 2

    def sigma(self, timestep):
        """The tangent of that angle."""
        return (timestep * math.pi / 2).tan()


class ModelSamplingCosmosRFlow(ModelSamplingContinuousEDM):
    """Flow time t = sigma / (sigma + 1), bounded by the largest sigma."""

    def timestep(self, sigma):
        """The flow time of a noise level."""
        return sigma / (sigma + 1)

    def sigma(self, timestep):
        """The noise level of a flow time."""
        if timestep >= self.timestep(self.sigma_max):
            return self.sigma_max
        return timestep / (1 - timestep)


def time_snr_shift(alpha, t):
    """Move flow time towards noise by `alpha`, as for larger pictures (Esser et al. 2024, section 5.3.2)."""
    if alpha == 1.0:
        return t
    return alpha * t / (1 + (alpha - 1) * t)


def flux_time_shift(mu: float, sigma: float, t):
    """The shift of Flux: e^mu / (e^mu + (1/t - 1)^sigma)."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


class ModelSamplingDiscreteFlow(_SigmaTable):
    """Rectified flow whose network counts time in `multiplier` units, with the SD3 shift."""

    def __init__(self, model_config=None):
        super().__init__()
        settings = _settings(model_config)
        self.set_noise_scale(settings.get("noise_scale", 1.0))
        self.set_parameters(shift=settings.get("shift", 1.0), multiplier=settings.get("multiplier", 1000))

    def set_noise_scale(self, noise_scale):
        """The standard deviation of the noise that the model was trained with."""
        self.noise_scale = float(noise_scale)

    def set_parameters(self, shift=1.0, timesteps=1000, multiplier=1000):
        """Lay the table for this shift."""
        self.shift = shift
        self.multiplier = multiplier
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1) / timesteps * multiplier))

    def timestep(self, sigma):
        """The network's time."""
        return sigma * self.multiplier

    def sigma(self, timestep):
        """The shifted noise level of an even time."""
        return time_snr_shift(self.shift, timestep / self.multiplier)

    def percent_to_sigma(self, percent):
        """The noise level after this share of the schedule."""
        if percent <= 0.0:
            return 1.0
        if percent >= 1.0:
            return 0.0
        return time_snr_shift(self.shift, 1.0 - percent)


class ModelSamplingFlux(_SigmaTable):
    """Rectified flow with the shift of Flux; the network's time is sigma itself."""

    def __init__(self, model_config=None):
        super().__init__()
        self.set_parameters(shift=_settings(model_config).get("shift", 1.15))

    def set_parameters(self, shift=1.15, timesteps=10000):
        """Lay the table for this shift."""
        self.shift = shift
        self.register_buffer("sigmas", self.sigma(torch.arange(1, timesteps + 1) / timesteps))

    def timestep(self, sigma):
        """The network's time."""
        return sigma

    def sigma(self, timestep):
        """The shifted noise level of an even time."""
        return flux_time_shift(self.shift, 1.0, timestep)

    def percent_to_sigma(self, percent):
        """The noise level after this share of the schedule."""
        if percent <= 0.0:
            return 1.0
        if percent >= 1.0:
            return 0.0
        return flux_time_shift(self.shift, 1.0, 1.0 - percent)


class StableCascadeSampling(ModelSamplingDiscrete):
    """The continuous cosine schedule of Wuerstchen, with a shift of the log SNR for larger pictures."""

    def __init__(self, model_config=None):
        super().__init__()
        self.set_parameters(_settings(model_config).get("shift", 1.0))

    def set_parameters(self, shift=1.0, cosine_s=8e-3):
        """Lay a table of 10,000 levels for schedulers that need one."""
        self.shift = shift
        self.cosine_s = torch.tensor(cosine_s)
        self._init_alpha_cumprod = torch.cos(self.cosine_s / (1 + self.cosine_s) * math.pi / 2) ** 2
        self.num_timesteps = 10000
        self.set_sigmas(self.sigma(torch.arange(1, self.num_timesteps + 1) / self.num_timesteps))

    def sigma(self, timestep):
        """The noise level of a time in 0..1 (tensor)."""
        angle = (timestep + self.cosine_s) / (1 + self.cosine_s) * math.pi / 2
        alpha_bar = torch.cos(angle) ** 2 / self._init_alpha_cumprod
        if self.shift != 1.0:
            alpha_bar = (torch.logit(alpha_bar) - 2 * math.log(self.shift)).sigmoid()
        alpha_bar = alpha_bar.clamp(0.0001, 0.9999)
        return ((1 - alpha_bar) / alpha_bar) ** 0.5

    def timestep(self, sigma):
        """The time in 0..1 of a noise level."""
        alpha_bar = (1 / (sigma**2 + 1)).clamp(0, 1.0)
        s = self.cosine_s.to(alpha_bar.device)
        angle = (alpha_bar * self._init_alpha_cumprod.to(alpha_bar.device)).sqrt().acos()
        return angle / (math.pi / 2) * (1 + s) - s

    def percent_to_sigma(self, percent):
        """The noise level after this share of the schedule."""
        if percent <= 0.0:
            return SIGMA_BEFORE_START
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor(1.0 - percent))
