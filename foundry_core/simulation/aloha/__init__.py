"""ALOHA in simulation (gym-aloha): two ViperX arms, their kinematics, a scripted expert."""
